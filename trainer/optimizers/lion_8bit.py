"""Lion with its mean in 8 bits, block by block (Chen et al. 2023; Dettmers et al. 2022), by bitsandbytes."""

from bitsandbytes.optim.lion import Lion8bit

from lorafleet.catalog.optimizers import lion_8bit
from trainer.optimizers._eight_bit import tables
from trainer.optimizers._library import LibraryOptimizer
from trainer.optimizers.lion import options
from trainer.optimizers.protocol import RowOptimizer

OPTIMIZER: RowOptimizer = LibraryOptimizer(lion_8bit.FACTS, Lion8bit, options, constants=tables)
