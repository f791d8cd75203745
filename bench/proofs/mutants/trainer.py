"""Wrong changes of trainer/: the loop, losses, samples, prediction, distillation, tiny."""

from alps.bench.proofs.mutants import changes_of

LOOP = ("tests/trainer/loop/test_loop.py",)
PLANS = ("tests/trainer/loop/test_plans.py",)
PREDICTIONS = (
    "tests/trainer/predict/test_predict.py",
    "tests/trainer/predict/test_predict_runs.py",
)
METRICS = ("tests/trainer/segmentation/test_segmentation_metrics.py",)
DATA = ("tests/trainer/data/test_trainer_data.py",)
DISTILL = ("tests/trainer/distill/test_distill.py",)
TINY_LOSS = ("tests/trainer/tiny/test_tiny_loss.py",)
TINY = ("tests/trainer/tiny/test_tiny_training.py",)
LIGHT = ("tests/trainer/tiny/test_tiny_light.py",)

MUTANTS = [
    *changes_of(
        "trainer/loop/train.py",
        LOOP,
        (
            "norm = state.clip(plan.clip, by_group=plan.clip_by_group)",
            'norm = state.clip(float("inf"), by_group=plan.clip_by_group)',
            "gradients are not clipped",
        ),
        ("by_group=plan.clip_by_group", "by_group=False", "groups are clipped together"),
        (
            "            state.optimiser.zero_grad(set_to_none=True)\n",
            "",
            "gradients of all steps add up",
        ),
        ("state.step = step + 1", "state.step = step", "a step is done twice after a resume"),
        (
            "            state.average(plan.keep, plan.early)\n",
            "",
            "the running average stands still",
        ),
        (
            "if saves or state.step % plan.log_every == 0:",
            "if state.step % plan.log_every == 0:",
            "a checkpoint is made of a loss that nobody looked at",
        ),
        ("and not last:", "and True:", "the last validation is done twice"),
        (
            "saves = last or state.step % plan.checkpoint_every == 0",
            "saves = state.step % plan.checkpoint_every == 0",
            "the last steps are in no checkpoint",
        ),
        ("        state.model.train()\n", "", "dropout and batch norm do not learn"),
        ("    state.model.eval()\n", "", "the network is left in training mode"),
        ("stack.enter_context(closing(lesson.batches(steps)))", "lesson.batches(steps)",
         "threads that make batches run on"),
        ("steps = range(state.step, total)", "steps = range(total)", "a resume begins at step 0"),
    ),
    *changes_of(
        "trainer/loop/state.py",
        LOOP,
        (
            'group["lr"] = highest * share',
            'group["lr"] = self.rates[0] * share',
            "the head has the encoder's rate",
        ),
        ("1 - keep)", "keep)", "average and weights change places"),
        (
            "keep = min(keep, self.step / (self.step + early))",
            "keep = keep",
            "the average remembers the start for long",
        ),
        (
            "                mean.copy_(of_model[name])\n",
            "                pass\n",
            "counts of batch norm are not averaged",
        ),
        (
            '        self.optimiser.load_state_dict(kept["optimiser"])\n',
            "",
            "a resume forgets the optimiser's state",
        ),
        (
            'self.averaged.load_state_dict(kept["averaged"])',
            'self.averaged.load_state_dict(kept["model"])',
            "a resume restarts the average",
        ),
        (
            "        with whole(path) as part:\n            torch.save(self.to_dict(), part)",
            "        torch.save(self.to_dict(), path)",
            "a killed process leaves half a checkpoint",
        ),
        (
            "return self.model if self.averaged is None else self.averaged",
            "return self.model",
            "the average is never what is kept",
        ),
    ),
    *changes_of(
        "trainer/loop/log.py",
        LOOP,
        (
            "            raise AlpsError(\n                f\"the loss is no number",
            "            print(\n                f\"the loss is no number",
            "a loss that is no number goes on",
        ),
        (
            "        self._values[GRADIENT_NORM].append(norm.detach())\n",
            "        self._values[GRADIENT_NORM].append(norm.detach().nan_to_num())\n",
            "gradients that are no number are not seen",
        ),
        (".mean(0).tolist()", "[-1].tolist()", "a line tells of its last step alone"),
        (
            "self._steps * self._batch / seconds",
            "self._batch / seconds",
            "images a second are those of one step",
        ),
        (
            "            keep_before(path, begin, self._settings.stage)\n",
            "",
            "steps that are done again stand twice in the log",
        ),
    ),
    *changes_of(
        "trainer/loop/lines.py",
        LOOP,
        (
            '*ended, _ = path.read_text(encoding="utf-8", errors="replace").split("\\n")',
            'ended = path.read_text(encoding="utf-8").splitlines()',
            "a torn last line cannot be read",
        ),
        ('line["step"] < step', 'line["step"] <= step', "a step is told of twice"),
        ('line.get("stage") != stage or ', "", "lines of other stages are dropped"),
    ),
    *changes_of(
        "trainer/loop/schedule.py",
        LOOP,
        ("return (step + 1) / self.rise", "return step / self.rise", "the first rate is 0"),
        ("return last + (1 - last) * wave", "return wave", "the cosine ends at 0"),
        (
            "left = (steps - step) / max(1.0, part * steps)",
            "left = (steps - step) / max(1.0, part)",
            "the rate falls in the last step",
        ),
    ),
    *changes_of(
        "trainer/segmentation/begin.py",
        PLANS,
        (
            "settings.rate * (1.0 if is_encoder else settings.head_rate)",
            "settings.rate * 1.0",
            "--head-rate is ignored",
        ),
        (
            "settings.weight_decay if decays else 0.0",
            "settings.weight_decay",
            "biases and norms decay",
        ),
    ),
    *changes_of(
        "trainer/segmentation/lesson.py",
        PLANS,
        ("clip=settings.clip", "clip=1e9", "--clip is ignored"),
        ("keep=settings.ema", "keep=0.999", "--ema is ignored"),
        ("fall = polynomial(settings.power)", "fall = polynomial(1.0)", "--power is ignored"),
        ("* group.size + group.rank)", "* group.size)", "all processes drop the same units"),
        ("validate_every=options.validate_every,", "", "--validate-every is ignored"),
    ),
    *changes_of(
        "trainer/segmentation/loss.py",
        METRICS,
        ("pow(-power)", "pow(power)", "common classes count more"),
        (" * (labels >= 0)", "", "pixels without a class count"),
        (
            "return (weights / (weights * shares).sum().clamp(min=1e-12)).float()",
            "return weights.float()",
            "class weights change the loss's size",
        ),
    ),
    *changes_of(
        "trainer/segmentation/blend.py",
        METRICS,
        ("place += values", "place[:] = values", "overlap is overwritten, not averaged"),
        ("found.float().softmax(dim=1)", "found.float()", "logits are averaged"),
    ),
    *changes_of(
        "trainer/segmentation/blend.py",
        PREDICTIONS,
        ("torch.sin(at) ** 2", "torch.ones_like(at)", "windows meet in a seam"),
        ("for start in range(step, rows, step):", "for start in ():", "rows in flight are lost"),
    ),
    *changes_of(
        "trainer/predict/shards.py",
        PREDICTIONS,
        ("source + int(reach.argmax())", "first", "a shard's first lines lack windows above it"),
        ("labels[empty] = ", "labels[:0] = ", "nodata has a class"),
    ),
    *changes_of(
        "trainer/predict/maps.py",
        PREDICTIONS,
        ("self._refuse_unread(source)", "pass", "an image that was not read has a map"),
    ),
    *changes_of(
        "trainer/segmentation/metrics.py",
        METRICS,
        ("(truth + predicted - true)", "(truth + predicted)", "IoU counts the overlap twice"),
        ("f1 = 2 * true", "f1 = true", "F1 is half"),
        ("values = values[~np.isnan(values)]", "values = np.nan_to_num(values)",
         "a class that is nowhere counts as 0"),
    ),
    *changes_of(
        "trainer/data/samples.py",
        DATA,
        (
            "        ids[ids == self._cells.unlabelled] = -1\n",
            "",
            "unlabelled pixels are a class",
        ),
        (
            "labels[~self._cells.visible[index][rows[:, None], columns]] = unlabelled",
            "pass",
            "a fraction sees labels beside its cells",
        ),
        (
            "shares = turned(read.weights, orientation).astype",
            "shares = read.weights.astype",
            "weights are not turned with their crop",
        ),
        (
            "labels = np.pad(labels, around, constant_values=unlabelled)",
            'labels = np.pad(labels, around, mode="symmetric")',
            "what lies beyond an image has labels",
        ),
    ),
    *changes_of(
        "trainer/distill/lesson.py",
        (*PLANS, *LOOP),
        ("clip=settings.clip", "clip=1e9", "--clip is ignored"),
        ('plain = parameter.ndim < 2 or "pos" in name', "plain = parameter.ndim < 2",
         "positions decay"),
        ('super().take({"model": kept.get("encoder"), **kept})', "super().take(kept)",
         "checkpoints of earlier versions do not open"),
    ),
    *changes_of(
        "trainer/distill/loss.py",
        DISTILL,
        (".square().mean(1) * weight).sum()", ".square().mean(1)).sum()", "padding teaches"),
        ("(squared + cosine * apart)", "(squared + apart)", "--cosine is ignored"),
        ("deviation.clamp(min=floor).float()", "deviation.float()",
         "a channel that hardly varies outweighs all"),
    ),
    *changes_of(
        "trainer/distill/data.py",
        DISTILL,
        ("held_out = np.isin(of_group, groups[:count])", "held_out = np.isin(good, groups[:count])",
         "windows of a held-out image are learnt from"),
        ("divmod(position, self.windows)", "(0, position % self.windows)",
         "every epoch has the same order"),
    ),
    *changes_of(
        "trainer/tiny/loss.py",
        TINY_LOSS,
        ("by_assignment.min(1)", "by_assignment.max(1)", "the worst assignment counts"),
        ("masked = cost * weight[:, :, None]", "masked = cost", "masks that are not there count"),
        ("dice + 10 * focal", "dice + focal", "focal's weight"),
    ),
    *changes_of(
        "trainer/tiny/prompts.py",
        TINY,
        ("(xy + 0.5) * (size / side) - 0.5", "xy * (size / side)", "points are off by half"),
        ("xy = torch.stack([xy[..., 1], last - xy[..., 0]], -1)",
         "xy = torch.stack([last - xy[..., 1], xy[..., 0]], -1)", "points turn the other way"),
        ("rng = np.random.default_rng([seed, step])", "rng = np.random.default_rng([seed, start])",
         "every batch is the same"),
    ),
    *changes_of(
        "trainer/tiny/train.py",
        (*PLANS, *TINY),
        ("clip_by_group=True,", "clip_by_group=False,",
         "the encoder's gradients outweigh the decoder's"),
        ('if not n.startswith("neck")', "", "the neck is in both groups"),
    ),
    *changes_of(
        "trainer/tiny/light.py",
        LIGHT,
        (".clamp(0, 255)", "", "pixels leave their range"),
    ),
]  # fmt: skip
