"""What is compared with diffusers' example scripts is the same draws in both, and a script that does otherwise is told so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench import families

STEPS, ROWS, SHAPE = 3, 2, (2, 4, 4)

# Draws as the scripts do, and logs the sum of what it got.
SCRIPT = """
import random
import torch
from accelerate import Accelerator
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.training_utils import compute_density_for_timestep_sampling

class Denoiser(torch.nn.Module, PeftAdapterMixin):
    def __init__(self):
        super().__init__()
        self._hf_peft_config_loaded = False
        self.to_q = torch.nn.Linear(3, 3)

from peft import LoraConfig
denoiser = Denoiser().requires_grad_(False)
denoiser.add_adapter(LoraConfig(r=1, target_modules=["to_q"], init_lora_weights="gaussian"))
begun = sum(p.sum().item() for n, p in denoiser.named_parameters() if "lora" in n)
order = [4, 2, 3]
random.shuffle(order)
accelerator = Accelerator()
loader = torch.utils.data.DataLoader(range(6), batch_size=2, shuffle=True)
latents = DiagonalGaussianDistribution(torch.ones(2, 4, 4, 4)).sample()
for step, batch in enumerate(loader):
    noise = torch.randn_like(latents[:, None])
    if step == 1:
        time = compute_density_for_timestep_sampling(weighting_scheme="none", batch_size=2) * 1000
    else:
        time = torch.randint(0, 1000, (2,))
    accelerator.log({"loss": noise.sum().item() + time.float().sum().item() + 100 * batch[0].item() + begun + latents.sum().item()})
raise SystemExit("not reached")
"""


@pytest.fixture
def draws(tmp_path: Path) -> Path:
    noise = torch.arange(STEPS)[:, None, None, None, None].expand(STEPS, ROWS, *SHAPE).float().contiguous()
    times = torch.tensor([[1, 2], [3, 4], [5, 6]])
    adapter = {"adapter.to_q.lora_A.weight": torch.ones(1, 3), "adapter.to_q.lora_B.weight": torch.zeros(3, 1)}
    save_file({"noise": noise, "times": times, **adapter}, tmp_path / "draws.safetensors")
    return tmp_path / "draws.safetensors"


@pytest.mark.proof
def test_a_script_gets_the_draws_that_are_given_and_ends_with_the_last(tmp_path: Path, draws: Path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "bench.peer_losses", str(tmp_path / "script.py"), str(draws), str(tmp_path / "losses.json")]
    # Not what other tests of this process have made of its environment, such as the group of a worker.
    alone = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    assert ended.returncode == 0, ended.stderr
    # A share of the table is the middle of its place: 0.5 more for each of the two rows.
    of_noise, of_times, of_adapter, of_latents = [0, 64, 128], [1 + 2, 3 + 4 + 1, 5 + 6], 3, 64
    expected = [of_noise[step] + of_times[step] + of_adapter + of_latents + 100 * 2 * step for step in range(STEPS)]
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(expected, rel=1e-5)


def test_differences_are_of_the_worst_step_and_of_as_many_on_both_sides():
    assert families.difference([1.0, 2.2, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="shorter"):
        families.difference([1.0, 2.0], [1.0])


def test_a_folder_without_the_scripts_is_refused_with_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert families.main([str(tmp_path), "--parts", "sd3,flux"]) == 2
    told = capsys.readouterr().err
    assert "train_dreambooth_lora_sd3.py" in told
    assert "a checkout of diffusers" in told
