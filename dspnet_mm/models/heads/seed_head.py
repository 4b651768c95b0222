# Copyright (c) The dspnet_mm authors. All rights reserved.
import torch
from mmengine.model import BaseModule
from mmselfsup.registry import MODELS
from torch.nn import functional as F

from dspnet_mm.errors import InputError
from dspnet_mm.models.feature_queue import FeatureQueue


@MODELS.register_module()
class SEEDHead(BaseModule):
    """SEED's loss: see the same similarities as the teacher.

    From SEED (arXiv 2101.04731, section 3.2): over a queue of the teacher's
    features of earlier images, and its feature of the present image, a
    softmax of the student's similarities is to match the teacher's. Both
    temperatures are the paper's.

    Args:
        channels (int): Outputs of the projectors.
        queue_size (int): How many features the queue holds, at least a
            batch's (the paper's 65,536 are for ImageNet). Defaults to 65536.
        student_temperature (float): Of the student's softmax, above 0.
            Defaults to 0.2.
        teacher_temperature (float): Of the teacher's softmax, above 0.
            Defaults to 0.01.

    Raises:
        InputError: If a temperature is not above 0.
    """

    def __init__(self,
                 channels: int,
                 queue_size: int = 65536,
                 student_temperature: float = 0.2,
                 teacher_temperature: float = 0.01) -> None:
        super().__init__()
        if min(student_temperature, teacher_temperature) <= 0:
            raise InputError(
                f'student_temperature={student_temperature} and '
                f'teacher_temperature={teacher_temperature} are not allowed: '
                'give values above 0')
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.queue = FeatureQueue(channels, queue_size)

    def forward(self, student: torch.Tensor,
                teacher: torch.Tensor) -> torch.Tensor:
        """The cross-entropy of both distributions.

        Args:
            student (Tensor): The student's projections, of shape (N, D).
            teacher (Tensor): The teacher's of the same images, without
                gradient, of shape (N, D).

        Returns:
            Tensor: A scalar, the mean over the images.
        """
        student, teacher = (
            F.normalize(features, dim=1) for features in (student, teacher))
        target = self._similarities(teacher, teacher)
        target = F.softmax(target / self.teacher_temperature, dim=1)
        seen = self._similarities(student, teacher)
        seen = F.log_softmax(seen / self.student_temperature, dim=1)
        return -(target * seen).sum(1).mean()

    def _similarities(self, features: torch.Tensor,
                      teacher: torch.Tensor) -> torch.Tensor:
        """To the queue and to the teacher's feature of the same image."""
        own = (features * teacher).sum(1, keepdim=True)
        return torch.cat([features @ self.queue.features.t(), own], dim=1)
