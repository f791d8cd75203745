"""Wrong changes of engine/browser: who is let in, and what the page shows and changes."""

from alps.bench.proofs.mutants import Mutant

SERVER = "tests/engine/browser/test_page_server.py"
STATE = ("tests/engine/browser/test_state.py",)

MUTANTS = [
    Mutant(
        "engine/browser/guard.py",
        old='        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):',
        new='        if not self._token.startswith(token.encode("utf-8", "replace")):',
        tests=(f"{SERVER}::test_only_who_has_the_token_is_let_in",),
        why="the beginning of a token, or none, lets in",
    ),
    Mutant(
        "engine/browser/guard.py",
        old='        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:',
        new="        if not host.startswith(HOSTS):",
        tests=(f"{SERVER}::test_another_host_is_refused",),
        why="names of other hosts that begin with this one's are let in",
    ),
    Mutant(
        "engine/browser/guard.py",
        old='headers.get("origin") != f"http://{host}"',
        new='headers.get("origin", f"http://{host}") != f"http://{host}"',
        tests=(f"{SERVER}::test_only_the_page_itself_changes_anything",),
        why="changes without an origin are made",
    ),
    Mutant(
        "engine/browser/guard.py",
        old='        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):',
        new='        if headers.get("sec-fetch-site", "none") == "same-site":',
        tests=(f"{SERVER}::test_only_the_page_itself_changes_anything",),
        why="other sites may ask",
    ),
    Mutant(
        "engine/browser/guard.py",
        old="        if len(body) > MOST_BODY:",
        new="        if len(body) > 100 * MOST_BODY:",
        tests=(f"{SERVER}::test_a_body_without_end_is_not_read",),
        why="huge bodies are read",
    ),
    Mutant(
        "engine/browser/pictures.py",
        old="            if index >= self.count:",
        new="            if index >= 100 * self.count:",
        tests=(f"{SERVER}::test_no_address_names_a_file",),
        why="a source that is not there is a fault of the server",
    ),
    Mutant(
        "engine/browser/app.py",
        old="        self._sessions.refuse_others(session)\n        if self._desk.busy:",
        new="        if self._desk.busy:",
        tests=(f"{SERVER}::test_one_browser_names_at_a_time",),
        why="a second browser changes names",
    ),
    Mutant(
        "engine/browser/desk.py",
        old="        self._redo.clear()\n        return self._look(after)",
        new="        return self._look(after)",
        tests=(f"{SERVER}::test_undo_and_redo_go_through_all_kinds_of_changes",),
        why="what was undone before a change is done again after it",
    ),
    Mutant(
        "engine/browser/desk.py",
        old="        forth.append(Step(step.words, now))",
        new="        forth.append(step)",
        tests=(f"{SERVER}::test_undo_and_redo_go_through_all_kinds_of_changes",),
        why="redo changes nothing",
    ),
    Mutant(
        "engine/browser/desk.py",
        old="        if known is None and self.version and names != self._names:",
        new="        if known is None and not self.version:",
        tests=(f"{SERVER}::test_what_others_change_is_seen_and_is_not_undone_here",),
        why="undo takes back what somebody else did",
    ),
    Mutant(
        "engine/browser/survey.py",
        old="        number: before.since[number] if _is_same(now, before, number) else turn\n",
        new="        number: before.since.get(number, turn)\n",
        tests=(f"{SERVER}::test_after_a_split_only_its_parts_have_other_pictures",),
        why="a cluster that was split keeps its pictures",
    ),
    Mutant(
        "engine/browser/state.py",
        old="    pixels = np.bincount(which, survey.pixels[mine], len(index))\n",
        new="    pixels = np.bincount(which, minlength=len(index))\n",
        tests=STATE,
        why="the sources named first have most clusters, not most pixels",
    ),
    Mutant(
        "engine/browser/state.py",
        old="        distance[np.arange(len(rows)), rows] = np.inf\n",
        new="",
        tests=STATE,
        why="a class is like itself",
    ),
    Mutant(
        "engine/browser/sessions.py",
        old="            if is_free or session == self._owner:",
        new="            if session == self._owner:",
        tests=(f"{SERVER}::test_a_browser_that_fell_silent_is_no_other",),
        why="a browser that was closed names for ever",
    ),
]
