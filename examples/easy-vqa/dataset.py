"""easy-VQA as arrays: images, questions as token ids, answers as classes.

    python dataset.py [FOLDER]      write FOLDER/calib.npz and FOLDER/eval.npz (default: this folder)
"""
import json
import pathlib
import sys

import easy_vqa
import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
ROOT = pathlib.Path(easy_vqa.__file__).parent / "data"
ANSWERS = (ROOT / "answers.txt").read_text().split()
QUESTION_LENGTH = 10


def words(question):
    return question.replace("?", " ?").lower().split()


class Split:
    """One split of the data set: `images` (N, 3, 64, 64) in [-1, 1], and per question `ids`, `image` and `label`."""

    def __init__(self, name, vocab):
        questions = read_questions(name)
        count = max(image for _, _, image in questions) + 1
        pixels = [np.asarray(Image.open(ROOT / name / "images" / f"{i}.png").convert("RGB")) for i in range(count)]
        self.images = (np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
        index = {word: i for i, word in enumerate(vocab)}
        self.ids = np.zeros((len(questions), QUESTION_LENGTH), np.int64)
        for row, (text, _, _) in zip(self.ids, questions):
            tokens = [index[word] for word in words(text)]
            row[QUESTION_LENGTH - len(tokens):] = tokens
        self.label = np.array([ANSWERS.index(answer) for _, answer, _ in questions], np.int64)
        self.image = np.array([image for _, _, image in questions], np.int64)


def read_questions(name):
    return json.loads((ROOT / name / "questions.json").read_text())


def vocabulary():
    return ["<pad>"] + sorted({word for name in ("train", "test") for text, _, _ in read_questions(name) for word in words(text)})


def write_npz(folder):
    test = Split("test", vocabulary())
    order = np.random.default_rng(0).permutation(len(test.label))
    for name, rows in (("calib", order[:2000]), ("eval", order[2000:5000])):
        np.savez_compressed(folder / f"{name}.npz", pixel_values=test.images[test.image[rows]], input_ids=test.ids[rows], labels=test.label[rows])


if __name__ == "__main__":
    write_npz(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
