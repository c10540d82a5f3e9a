"""LeRobot's own dataset class, unchanged, reading what is written here and writing.

Run by test_lerobot_data.py in an environment of its own, where `act_minimal` is
not installed: only the folders connect the two. Several commands may follow each other,
with a + between them.

    python tests/exchange/lerobot_data_client.py read FOLDER OUT
    python tests/exchange/lerobot_data_client.py write FOLDER IN
    python tests/exchange/lerobot_data_client.py append FOLDER IN
    python tests/exchange/lerobot_data_client.py upgrade PARENT NAME
"""

import json
import sys
from pathlib import Path

import av
import numpy as np
import torch
import torchvision
from lerobot.datasets.lerobot_dataset import LeRobotDataset

try:  # from 0.5 on
    from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset
    from lerobot.utils.feature_utils import dataset_to_policy_features
except ImportError:
    from lerobot.datasets.utils import dataset_to_policy_features
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

try:
    from lerobot.configs.video import RGBEncoderConfig
except ImportError:
    ENCODER = {"vcodec": "h264"}
else:
    ENCODER = {"rgb_encoder": RGBEncoderConfig(vcodec="h264")}

REPO = "someone/something"


class VideoReader:
    """torchvision's reader, which LeRobot 0.4.4 asks for and newer releases dropped.

    Only the source of decoded frames: which of them is right, LeRobot decides itself.
    """

    def __init__(self, path: str, stream: str):
        self.container = av.open(path)
        self.stream = self.container.streams.video[0]

    def seek(self, seconds: float, keyframes_only: bool = False) -> "VideoReader":
        self.container.seek(int(seconds / self.stream.time_base), stream=self.stream)
        return self

    def __iter__(self):
        for frame in self.container.decode(self.stream):
            image = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            yield {"data": image.permute(2, 0, 1), "pts": frame.time}


if not hasattr(torchvision.io, "VideoReader"):
    torchvision.io.VideoReader = VideoReader


def read(folder: str, out: str) -> None:
    """All frames, by LeRobot's index, into OUT.npz and OUT.json."""
    data = LeRobotDataset(REPO, root=folder, video_backend="pyav")
    frames = [data[i] for i in range(len(data))]
    arrays = {}
    for key, value in frames[0].items():
        if isinstance(value, torch.Tensor):
            arrays[key] = np.stack([frame[key].numpy() for frame in frames])
    np.savez(f"{out}.npz", **arrays)
    # A window around the seam of two episodes, as training asks for it.
    window = {"action": [0.0, 1 / data.fps], "observation.state": [-1 / data.fps, 0.0]}
    cameras = data.meta.camera_keys
    window |= {camera: [-1 / data.fps, 0.0] for camera in cameras}
    windows = LeRobotDataset(
        REPO, root=folder, video_backend="pyav", delta_timestamps=window
    )
    seam = windows[data.meta.episodes[0]["length"] - 1]
    said = {
        "episodes": data.num_episodes,
        "frames": data.num_frames,
        "fps": data.fps,
        "robot_type": data.meta.robot_type,
        "tasks": [frame["task"] for frame in frames],
        "stats": {
            key: {name: np.shape(value) for name, value in stats.items()}
            for key, stats in data.meta.stats.items()
        },
        "features": {
            key: [feature.type.value, list(feature.shape)]
            for key, feature in dataset_to_policy_features(data.features).items()
        },
        "seam": {
            "padded": seam["action_is_pad"].tolist(),
            "images": [list(seam[camera].shape) for camera in cameras],
        },
    }
    Path(f"{out}.json").write_text(json.dumps(said))


def features_of(arrays: dict, kind: str) -> dict:
    """LeRobot's description of some arrays of shape (T, ...)."""
    features = {}
    for key, value in arrays.items():
        if ".images." in key:
            names = ["height", "width", "channels"]
            features[key] = {"dtype": kind, "shape": value.shape[1:], "names": names}
        elif key not in ("lengths", "fps", "kind", "robot_type"):
            features[key] = {
                "dtype": str(value.dtype),
                "shape": value.shape[1:],
                "names": None,
            }
    return features


def fill(data: LeRobotDataset, arrays: dict, features: dict) -> None:
    """Record the episodes of the arrays, frame by frame."""
    start = 0
    for number, length in enumerate(arrays["lengths"]):
        for i in range(start, start + length):
            frame = {key: arrays[key][i] for key in features}
            data.add_frame(frame | {"task": f"task {number % 2}"})
        data.save_episode(parallel_encoding=False)
        start += length
    data.finalize()


def write(folder: str, source: str) -> None:
    """A dataset as a recording makes it."""
    arrays = dict(np.load(f"{source}.npz"))
    features = features_of(arrays, str(arrays["kind"]))
    data = LeRobotDataset.create(
        REPO,
        int(arrays["fps"]),
        features,
        root=folder,
        robot_type=str(arrays["robot_type"]),
        use_videos=str(arrays["kind"]) == "video",
        **ENCODER,
    )
    fill(data, arrays, features)


def append(folder: str, source: str) -> None:
    """Further episodes in a dataset that is there."""
    arrays = dict(np.load(f"{source}.npz"))
    opened = getattr(LeRobotDataset, "resume", LeRobotDataset)  # its name from 0.5 on
    data = opened(REPO, root=folder, video_backend="pyav", **ENCODER)
    fill(data, arrays, features_of(arrays, "video"))


def upgrade(parent: str, name: str) -> None:
    """LeRobot's own conversion of v2.1 to v3.0, in place."""
    # Its root is the dataset's own folder from 0.5 on, and was that around it.
    newer = hasattr(LeRobotDataset, "resume")
    root = Path(parent, name) if newer else Path(parent)
    convert_dataset(name, root=root, push_to_hub=False)


if __name__ == "__main__":
    verbs = {"read": read, "write": write, "append": append, "upgrade": upgrade}
    for line in " ".join(sys.argv[1:]).split(" + "):
        verb, *names = line.split()
        verbs[verb](*names)
