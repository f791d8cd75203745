"""COCO's instances: a JSON a split, masks as compressed run lengths, which pycocotools reads.

    {"info": …, "licenses": [], "categories": […], "annotations": […], "images": […]}

Ids count from 1, as COCO's own do: of a category its label-map value + 1, of an image its place in
the plan + 1, of annotations their order over both splits.
"""

import json

from alps.engine.base.errors import SourceError
from alps.engine.datasets.draft import Done, Draft, Stream
from alps.engine.datasets.images import TRAIN, VAL, LabelledImage, LabelledRun
from alps.engine.datasets.settings import ExportSettings
from alps.kernels.masks.runs import PIXEL_LIMIT


class CocoFormat:
    """Writes annotations/instances_train.json, and instances_val.json where scenes are held out."""

    def __init__(self, run: LabelledRun, draft: Draft, settings: ExportSettings) -> None:
        self._run, self._draft = run, draft
        self._splits = (TRAIN, VAL) if settings.splits.val else (TRAIN,)

    def add(self, image: LabelledImage, number: int) -> int:
        """An image, and an annotation for each of its instances."""
        if image.width * image.height >= PIXEL_LIMIT:
            raise SourceError(
                f"{image.width} x {image.height} pixels are more than run lengths of COCO count; "
                "cut the image in pieces and label those"
            )
        found = self._run.instances(image)
        annotations, images = self._files(image.split)
        size = [image.height, image.width]
        parts = zip(
            found.values.tolist(), found.areas.tolist(), found.boxes.tolist(), found.codes(),
            strict=True,
        )  # fmt: skip
        for own, (value, area, box, code) in enumerate(parts, number + 1):
            annotations.add(
                _json(
                    id=own,
                    image_id=image.index + 1,
                    category_id=value + 1,
                    segmentation={"size": size, "counts": code.decode()},
                    area=area,
                    bbox=box,
                    iscrowd=0,
                )
            )
        images.add(
            _json(id=image.index + 1, file_name=image.name, width=image.width, height=image.height)
        )
        return len(found)

    def finish(self, done: Done) -> None:
        """Images come last: no annotation waits for them in memory."""
        for split in self._splits:
            annotations, images = self._files(split)
            images.sync()
            annotations.end('\n],\n"images": [\n')
            annotations.end("\n]}\n", self._draft.path(self._name_of_images(split)))

    def _files(self, split: str) -> tuple[Stream, Stream]:
        name = f"annotations/instances_{split}.json"
        annotations = self._draft.stream(name, self._head(), ",\n")
        return annotations, self._draft.stream(self._name_of_images(split), "", ",\n")

    def _name_of_images(self, split: str) -> str:
        return f".images_{split}"  # goes into the other file at the end

    def _head(self) -> str:
        categories = [
            {"id": item.value + 1, "name": item.name, "supercategory": "", "color": item.colour}
            for item in self._run.categories.items
        ]
        info = {"description": f"pseudo-classes of {self._run.run.get('source', 'an archive')}"}
        return (
            f'{{"info": {_json(**info)},\n"licenses": [],\n'
            f'"categories": {json.dumps(categories)},\n"annotations": [\n'
        )


def _json(**values: object) -> str:
    return json.dumps(values)
