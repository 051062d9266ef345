"""Where ``iouquery train --log`` writes: back ends of mmengine's visualizer that go on where a training goes on."""

from .csv_log import CsvLog
from .mlflow_log import MlflowLog
from .tensorboard_log import TensorboardLog
from .training_log import TrainingLog
from .wandb_log import WandbLog

__all__ = ['CsvLog', 'MlflowLog', 'TensorboardLog', 'TrainingLog', 'WandbLog']
