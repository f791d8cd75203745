"""Recipe of a shore: sea and beach laid over another recipe's land."""

import numpy as np

from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.classes import SAND, VEHICLE, WATER
from alps.engine.demo.scenes.geometry import place, scatter, wander
from alps.engine.demo.scenes.rural import desert, farmland, forest
from alps.engine.demo.scenes.style import Style, vary
from alps.engine.demo.scenes.suburb import suburb
from alps.engine.demo.scenes.urban import city


def coast(canvas: Canvas, style: Style, rng: np.random.Generator) -> None:
    """A shore: sea, beach, and a town or woods behind it."""
    behind = (suburb, city, farmland, forest, desert)[
        int(rng.choice(5, p=[0.3, 0.2, 0.2, 0.2, 0.1]))
    ]
    behind(canvas, style, rng)
    shore = wander(rng, canvas.extent, rng.uniform(0.03, 0.10))
    along = shore[-1] - shore[0]
    out = np.array([-along[1], along[0]]) / np.hypot(*along)
    if (shore[32] - canvas.extent / 2) @ out < 0:
        out = -out
    far = shore[[-1, 0]] + out * 3 * canvas.extent
    beach = min(rng.uniform(8, 60), canvas.extent / 6)
    wave = np.interp(np.arange(len(shore)), np.arange(0, len(shore), 8), rng.uniform(0.5, 1.5, 9))
    inland = shore - out * beach * wave[:, None]
    e = canvas.extent
    ground = np.concatenate([inland, far])
    canvas.light([ground])
    canvas.add(SAND, [ground], style.sand, "sand")
    canvas.add(SAND, [np.concatenate([shore - out * beach * 0.18, far])], style.sand * 0.78, "sand")
    sea = vary(rng, np.array([[46.0, 92.0, 112.0]]), 0.12)[0]
    segment = canvas.new_segments(WATER)
    part = canvas.new_parts(segment)
    shallow = min(rng.uniform(6, 60), e / 5)
    for k in range(8):
        mix = k / 7
        colour = (1 - mix) * (0.5 * sea + 0.5 * np.array([120, 160, 158])) + mix * sea
        edge = shore + out * shallow * mix
        canvas.detail(part, [np.concatenate([edge, far])], colour, "water")
    boats = scatter(rng, e, max(40.0, 30 * canvas.metres_per_pixel), 150)
    boats = boats[canvas.class_at(boats) == WATER][: int(rng.integers(0, 14))]
    if len(boats):
        shape = np.array([[-0.5, -0.16], [0.2, -0.17], [0.5, 0], [0.2, 0.17], [-0.5, 0.16]])
        length = rng.uniform(6, 18, len(boats))
        hulls = place(shape * length[:, None, None], boats, rng.uniform(0, 6.3, len(boats)))
        if canvas.pixels(0.33 * 10) >= 2.2:
            parts = canvas.add(VEHICLE, hulls, (232, 232, 228), "metal")
            middle = hulls.mean(axis=1, keepdims=True)
            canvas.detail(parts, middle + (hulls - middle) * 0.6, (176, 164, 146), "metal")
        else:
            canvas.detail(canvas.part_at(boats), hulls, (232, 232, 228), "metal")
