"""rsLoRA: LoRA with another scaling, which its facts say (Kalajdzievski 2023). That it was one is only told in files: alpha holds it."""

from lorafleet.catalog.methods import rslora
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods.lora import LoRA
from trainer.adapters.methods.protocol import AdapterMethod


class RankStabilisedLoRA(LoRA):
    facts = rslora.FACTS

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        return "networks.lora", {"rs_lora": "True"}


METHOD: AdapterMethod = RankStabilisedLoRA()
