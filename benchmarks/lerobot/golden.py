"""What LeRobot 0.4.4 computes, kept small: golden files that hold our ACT against it.

    uv run python -m benchmarks.lerobot.golden

Weights and inputs are not kept: both sides make them from their names (`made_of`), so
that a golden file of a 50-million-parameter network is a few kilobytes. LeRobot runs
unchanged, in an environment of its own (`tests/lerobot_environment.py`). Writes
tests/golden/lerobot_act.{json,safetensors}, and checkpoints as LeRobot saves them:
tests/golden/lerobot_0.4/ and, from its last release before, lerobot_0.3/. Letters:
B batch, k chunk, A action, S state, E env_state, T ticks.
"""

# pyright: reportMissingImports=false
# LeRobot is there only in its own environment.

import json
import sys
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from act_minimal.support.files import (
    atomic_folder,
    discard,
    read_json,
    write_bytes,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

ROWS = 2  # B
SMALL: dict[str, Any] = {
    "chunk_size": 8,
    "n_action_steps": 8,
    "dim_model": 32,
    "n_heads": 4,
    "dim_feedforward": 48,
    "n_encoder_layers": 2,
    "n_vae_encoder_layers": 2,
    "latent_dim": 6,
}
PRE_NORM, GELU = SMALL | {"pre_norm": True}, {"feedforward_activation": "gelu"}
# Name: (S, A, E, cameras, (H, W) or one such pair a camera, settings of LeRobot's
# ACTConfig). Without dropout, whose random numbers nobody can share.
CASES: dict[str, tuple[int, int, int, int, Any, dict[str, Any]]] = {
    "one_camera": (5, 4, 0, 1, (64, 96), SMALL),
    "two_cameras": (5, 4, 0, 2, (64, 96), SMALL),
    "two_sizes": (5, 4, 0, 2, ((64, 96), (40, 72)), SMALL),
    "two_cameras_pre_norm": (5, 4, 0, 2, (64, 96), PRE_NORM),
    "no_vae": (5, 4, 0, 1, (70, 100), SMALL | {"use_vae": False}),
    "no_vae_pre_norm": (5, 4, 0, 1, (64, 96), PRE_NORM | {"use_vae": False}),
    "env_state": (6, 6, 7, 0, (64, 96), SMALL),
    "env_state_pre_norm": (6, 6, 7, 0, (64, 96), PRE_NORM | GELU),
    "env_state_and_cameras": (5, 4, 3, 2, (64, 96), SMALL),
    "three_decoder_layers": (5, 4, 3, 0, (64, 96), SMALL | {"n_decoder_layers": 3}),
    "resnet34": (5, 4, 0, 1, (64, 96), SMALL | {"vision_backbone": "resnet34"}),
    "paper_one_480x640": (14, 14, 0, 1, (480, 640), {}),
    "paper_two_240x320": (14, 14, 0, 2, (240, 320), {}),
}
# Declared as its dataset has them, and never read by LeRobot's ACT.
UNREAD = {"two_sizes": ("observation.velocity", "observation.effort")}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, deviation
COEFFICIENTS = (0.01, 0.0, 0.5, -0.1)  # of the ensemble; > 0 weighs the old more
TICKS, CHUNK = 40, 10


def made_of(name: str, *shape: int, uniform: bool = False) -> Tensor:
    """Numbers that depend on the name alone: standard normal, or uniform in [0, 1).

    `RandomState` because NumPy promises its numbers for good.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    numbers = random.random_sample(shape) if uniform else random.standard_normal(shape)
    return torch.from_numpy(np.asarray(numbers, np.float32))


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for LeRobot's names, of a size that keeps signals neither flat nor wild.

    Constants, such as the sines that say where a token is, stay as LeRobot has them.
    """
    out = {}
    for name, old in state.items():
        if name.endswith("pos_enc"):
            out[name] = old
            continue
        x = made_of(name, *old.shape)
        if name.endswith("running_var"):
            x = 1 + 0.3 * x.tanh()
        elif "embed" not in name and x.dim() > 1:  # matrices and convolutions
            x = x * (1.5 / x[0].numel()) ** 0.5
        elif name.endswith(("weight", "norm")) and x.dim() == 1:
            x = 1 + 0.1 * x
        elif x.dim() == 1:
            x = 0.1 * x
        # A posterior near the prior, as training makes it: float32 would hide a small
        # difference in a loss of thousands.
        out[name] = x * 0.1 if "latent_output_proj" in name else x
    return out


def camera_keys(case: str) -> list[str]:
    """LeRobot's names of a case's cameras."""
    return [f"observation.images.camera{i}" for i in range(CASES[case][3])]


def camera_sizes(case: str) -> list[tuple[int, int]]:
    """(H, W) of each of a case's cameras."""
    _, _, _, n, size, _ = CASES[case]
    return list(size) if isinstance(size[0], tuple) else [size] * n


def inputs(case: str) -> dict[str, Tensor]:
    """A normalised batch by LeRobot's names; images are uint8 (B, 3, H, W)."""
    s, a, e, _, _, settings = CASES[case]
    k, z = settings.get("chunk_size", 100), settings.get("latent_dim", 32)
    batch = {
        "observation.state": made_of(f"{case} state", ROWS, s),
        "action": made_of(f"{case} action", ROWS, k, a),
        "eps": made_of(f"{case} eps", ROWS, z),
    }
    if e:
        batch["observation.environment_state"] = made_of(f"{case} env", ROWS, e)
    for name, size in zip(camera_keys(case), camera_sizes(case), strict=True):
        pixels = made_of(f"{case} {name}", ROWS, 3, *size, uniform=True)
        batch[name] = (pixels * 256).to(torch.uint8)
    is_pad = torch.zeros(ROWS, k, dtype=torch.bool)
    is_pad[0, k // 2 :] = True
    is_pad[1, k - 1 :] = True
    return batch | {"action_is_pad": is_pad}


def chunks() -> Tensor:
    """(T, B, k, A) predictions to ensemble."""
    return made_of("chunks", TICKS, ROWS, CHUNK, 3)


# ---------------------------------------------------- where LeRobot can be imported


def lerobot_policy(case: str, **statistics: Any) -> Any:
    """LeRobot's policy of a case, with made-up weights; before 0.4 with statistics."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    s, a, e, _, _, settings = CASES[case]
    features = {"observation.state": PolicyFeature(FeatureType.STATE, (s,))}
    for name in UNREAD.get(case, ()):
        features[name] = PolicyFeature(FeatureType.STATE, (s,))
    if e:
        env = PolicyFeature(FeatureType.ENV, (e,))
        features["observation.environment_state"] = env
    for name, size in zip(camera_keys(case), camera_sizes(case), strict=True):
        features[name] = PolicyFeature(FeatureType.VISUAL, (3, *size))
    config = ACTConfig(
        input_features=features,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (a,))},
        device="cpu",
        push_to_hub=False,
        pretrained_backbone_weights=None,
        **{"dropout": 0.0, **settings},
    )
    policy = ACTPolicy(config, **statistics)
    policy.model.load_state_dict(weights(policy.model.state_dict()))
    return policy


def run_case(case: str) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Outputs of a case, and the shapes of LeRobot's weights."""
    policy, batch = lerobot_policy(case), inputs(case)
    eps = batch.pop("eps")
    mean, std = torch.tensor(IMAGENET)[:, :, None, None]
    for name in camera_keys(case):  # as LeRobot's normalising step does it
        batch[name] = (batch[name].float() / 255 - mean) / (std + 1e-8)
    out = {"actions": policy.predict_action_chunk(dict(batch))}
    policy.train()
    with mock.patch("torch.randn_like", return_value=eps):  # its draw of z
        loss, parts = policy.forward(batch)
    loss.backward()
    grads = [p.grad.norm() for p in policy.parameters() if p.grad is not None]
    terms = [loss.item(), parts["l1_loss"], parts.get("kld_loss", 0.0)]
    out["loss_l1_kl"] = torch.tensor(terms)
    out["grad_norm"] = torch.stack(grads).norm()[None]
    shapes = {key: list(x.shape) for key, x in policy.model.state_dict().items()}
    return out, shapes


def run_ensembles() -> dict[str, Tensor]:
    """(T, B, A) of LeRobot's temporal ensembler for each coefficient."""
    from lerobot.policies.act.modeling_act import ACTTemporalEnsembler

    out = {}
    for m in COEFFICIENTS:
        ensembler = ACTTemporalEnsembler(m, CHUNK)
        out[str(m)] = torch.stack([ensembler.update(chunk) for chunk in chunks()])
    return out


def made_up_statistics(policy: Any) -> dict[str, dict[str, Tensor]]:
    """Mean, deviation, least and greatest of each feature of a policy."""
    config, stats = policy.config, {}
    for name, feature in (config.input_features | config.output_features).items():
        shape = (3, 1, 1) if len(feature.shape) == 3 else feature.shape
        mean = made_of(f"{name} mean", *shape, uniform=True)
        std = 0.2 + made_of(f"{name} std", *shape, uniform=True)
        low, high = mean - 2 * std, mean + 3 * std
        stats[name] = {"mean": mean, "std": std, "min": low, "max": high}
    return stats


def save_checkpoint(case: str, folder: Path) -> None:
    """A checkpoint of a case as LeRobot itself saves one, with made-up statistics."""
    from lerobot.policies.factory import make_pre_post_processors

    policy = lerobot_policy(case)
    stats = made_up_statistics(policy)
    both = make_pre_post_processors(policy.config, dataset_stats=stats)
    for part in (policy, *both):
        part.save_pretrained(folder)


def act_on(folder: Path, observation: dict[str, Tensor]) -> dict[str, Tensor]:
    """What LeRobot does with a checkpoint, on an observation by LeRobot's names.

    Images are uint8 (B, 3, H, W); "chunk" (B, k, A) and "actions" (T, B, A), its first
    few, are in the checkpoint's units.
    """
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    policy = ACTPolicy.from_pretrained(folder, strict=True)
    before, after = make_pre_post_processors(policy.config, str(folder))
    batch = {
        key: x.float() / 255 if x.dtype == torch.uint8 else x
        for key, x in observation.items()
    }
    chunk = policy.predict_action_chunk(before(batch))
    actions = []
    for tick in range(6):
        moved = batch | {"observation.state": batch["observation.state"] + 0.1 * tick}
        actions.append(after(policy.select_action(before(moved))))
    return {
        "chunk": torch.stack([after(x) for x in chunk.unbind(1)], 1),
        "actions": torch.stack(actions),
    }


def save_old_checkpoint(case: str, folder: Path) -> None:
    """The same before 0.4, and what it does: chunk.safetensors beside the folder."""
    from safetensors.torch import save

    stats = made_up_statistics(lerobot_policy(case))
    policy = lerobot_policy(case, dataset_stats=stats).eval()
    policy.save_pretrained(folder)
    seen = {k: x for k, x in inputs(case).items() if k.startswith("observation")}
    # Its chunk is in normalised units; only single actions are not.
    ticks = range(policy.config.n_action_steps)
    chunk = torch.stack([policy.select_action(dict(seen)) for _ in ticks], 1)
    write_bytes(folder.parent / "chunk.safetensors", save({"chunk": chunk}))


def inside(job: str, out: Path, *words: str) -> None:
    """One job in LeRobot's environment; the answers go to `out`."""
    from safetensors.torch import load_file, save

    if job == "cases":
        tensors = {f"ensemble/{m}": x for m, x in run_ensembles().items()}
        shapes = {}
        for case in words:
            found, shapes[case] = run_case(case)
            tensors |= {f"{case}/{key}": x for key, x in found.items()}
        write_json(out.with_suffix(".json"), shapes)
        whole = {key: x.detach().contiguous() for key, x in tensors.items()}
        write_bytes(out, save(whole))
    elif job == "save":
        save_checkpoint(words[0], out)
    elif job == "save_old":
        save_old_checkpoint(words[0], out)
    elif job == "act":
        pairs = list(zip(words[::2], words[1::2], strict=True))
        answers = [act_on(Path(folder), load_file(seen)) for folder, seen in pairs]
        rows = enumerate(answers)
        found = {f"{i}/{key}": x for i, row in rows for key, x in row.items()}
        write_bytes(out, save(found))


def in_lerobot(
    job: str, out: Path, *words: str | Path, version: str | None = None
) -> None:
    """Run a job in LeRobot's environment, of the tests' version by default.

    "cases" and names of cases: outputs to a .safetensors, shapes of weights to a .json
    beside it; "save" and a case: a checkpoint folder ("save_old" with LeRobot 0.3.3,
    and a chunk.safetensors beside the folder); "act" and pairs of a folder and a file
    with an observation: what LeRobot does then, by the number of the pair.
    """
    from tests.lerobot_environment import VERSION, make_environment, run

    program = ("-m", "benchmarks.lerobot.golden", job, out, *words)
    run(make_environment(version or VERSION), *program)


def main() -> None:
    """Make all golden files again: those that are there stay until all are made."""
    import shutil
    import tempfile
    from importlib.metadata import version

    from safetensors.torch import load_file, save

    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        cases, seen, done = (home / name for name in ("cases", "seen", "done"))
        folder, old = home / "lerobot_0.4", home / "lerobot_0.3"
        in_lerobot("cases", cases, *CASES)
        in_lerobot("save", folder, "env_state")
        batch = inputs("env_state")
        observation = {k: x for k, x in batch.items() if k.startswith("observation")}
        write_bytes(seen, save(observation))
        in_lerobot("act", done, folder, seen)
        in_lerobot("save_old", old, "env_state", version="0.3.3")
        tensors = load_file(cases)
        tensors |= {f"folder/{key[2:]}": x for key, x in load_file(done).items()}
        tensors |= {"folder/old": load_file(home / "chunk.safetensors")["chunk"]}
        shapes_of = read_json(cases.with_suffix(".json"))
        for made in (folder, old):
            discard(GOLDEN / made.name)
            with atomic_folder(GOLDEN / made.name) as whole:
                shutil.copytree(made, whole, dirs_exist_ok=True)
    file = GOLDEN / "lerobot_act.safetensors"
    write_bytes(file, save(tensors))
    rows = [
        f"    {json.dumps(case)}: {json.dumps(shapes)}"
        for case, shapes in shapes_of.items()
    ]
    said = {"torch": version("torch"), "numpy": version("numpy")}
    said["lerobot"] = "0.4.4, 0.3.3"
    write_text(
        file.with_suffix(".json"),
        '{\n  "command": "python -m benchmarks.lerobot.golden",\n'
        f'  "versions": {json.dumps(said)},\n  "weights": {{\n'
        + ",\n".join(rows)
        + "\n  }\n}\n",
    )
    sizes = sum(x.stat().st_size for x in GOLDEN.rglob("*") if x.is_file())
    print(f"{GOLDEN}: {sizes / 1024:.0f} KiB")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        inside(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
    else:
        main()
