"""Names where everything lies in the store: the only place that knows the storage layout. Pure string functions."""

from dataclasses import dataclass

MANIFEST = "manifest.json"
DIFFUSERS_ENDING = "pytorch_lora_weights.safetensors"


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` under it, single slashes between."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


@dataclass(frozen=True)
class JobLayout:
    """The folders of one job under its output root."""

    root: str

    @property
    def spec(self) -> str:
        return join(self.root, "spec.json")

    @property
    def checkpoints(self) -> str:
        return join(self.root, "checkpoints")

    def checkpoint(self, step: int) -> str:
        return join(self.checkpoints, step_folder(step))

    def samples(self, step: int) -> str:
        return join(self.root, "samples", step_folder(step))

    @property
    def metrics(self) -> str:
        return join(self.root, "metrics")

    @property
    def adapter(self) -> str:
        return join(self.root, "adapter")

    def log(self, attempt: int, number: int = 0) -> str:
        """An object of the attempt's log; a long log continues in numbers 1, 2 and so on."""
        return join(self.root, "logs", f"attempt-{attempt}.{number:04d}.log" if number else f"attempt-{attempt}.log")


def adapter_file(file_format: str, name: str | None) -> str:
    """The file of a format, named after the LoRA; None: a name that is the same for all. Of PEFT's a folder.

    kohya's is what people put into their tools' folders, so it has the plain name. load_lora_weights of diffusers finds the other
    by its ending.
    """
    match file_format:
        case "kohya":
            return f"{name}.safetensors" if name else "lora-kohya.safetensors"
        case "comfyui":
            return f"{name or 'lora'}-comfyui.safetensors"
        case "peft":
            return f"{name or 'lora'}-peft"
        case _:
            return f"{name}-{DIFFUSERS_ENDING}" if name else DIFFUSERS_ENDING


def embedding_file(stem: str) -> str:
    """The file of a new token, in the artifact: AUTOMATIC1111 and ComfyUI know the token by its name, without the ending."""
    return f"embeddings/{stem}.safetensors"


def plain_lora_file(file_format: str, name: str | None) -> str:
    """The plain LoRA nearest to an adapter, in a folder of its own: who reads the artifact takes what was trained."""
    return f"plain-lora/{adapter_file(file_format, name)}"


def step_folder(step: int) -> str:
    """`step-00000500`: sorts by step as text."""
    return f"step-{step:08d}"


def job_root(artifacts_uri: str, job_name: str) -> str:
    """Default output root of `tenants/{tenant}/jobs/{job}`."""
    return join(artifacts_uri, job_name)


def tenant_root(artifacts_uri: str, tenant: str) -> str:
    """The tenant's own folder."""
    return join(artifacts_uri, "tenants", tenant)


def run_manifest(artifacts_uri: str, run_id: str) -> str:
    """The run's manifest, which the control plane writes for its driver."""
    return join(artifacts_uri, "runs", run_id, "run.json")
