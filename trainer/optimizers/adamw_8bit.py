"""AdamW with moments in 8 bits, block by block (Dettmers et al. 2022), by bitsandbytes."""

from bitsandbytes.optim.adamw import AdamW8bit

from lorafleet.catalog.optimizers import adamw_8bit
from trainer.optimizers._eight_bit import tables
from trainer.optimizers._library import LibraryOptimizer, adam_options
from trainer.optimizers.protocol import RowOptimizer

OPTIMIZER: RowOptimizer = LibraryOptimizer(adamw_8bit.FACTS, AdamW8bit, adam_options, constants=tables)
