"""The convolutional network of the CNN-SVM paper, with its plain softmax head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

STD = 0.1  # of the truncated normal that all weights are drawn from
BIAS = 0.1


class CnnSvm(nn.Module):
    """Two 5×5 convolutions and two linear layers for 28×28 grey images; 3,274,634 parameters.

    conv 1→32, ReLU, max-pool 2 · conv 32→64, ReLU, max-pool 2 · linear 3136→1024, ReLU, dropout 0.5 ·
    linear 1024→10. Weights come from N(0, 0.1²) cut at two standard deviations, biases start at 0.1,
    and nothing is normalised: logits at initialisation are far from zero, and the loss far above ln 10.

    Source: Agarap 2017, "An Architecture Combining CNN and SVM for Image Classification", arXiv
    1712.03541, as in the author's code (github.com/AFAgarap/cnn-svm, model/cnn_softmax.py).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.hidden = nn.Linear(7 * 7 * 64, 1024)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(1024, 10)
        for layer in (self.conv1, self.conv2, self.hidden, self.head):
            nn.init.trunc_normal_(layer.weight, std=STD, a=-2 * STD, b=2 * STD)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, BIAS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, 10), of images (B, 1, 28, 28) in [0, 1]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.head(self.dropout(F.relu(self.hidden(x.flatten(1)))))
