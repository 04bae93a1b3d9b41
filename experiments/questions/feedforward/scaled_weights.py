"""Scaled weights: the weights of a token's experts sum to 2.5 instead of 1."""

from harness.extend import MoE, MoEOptions, register_experts

SUM = 2.5


@register_experts("scaled_weights", MoEOptions)
class ScaledWeights(MoE):
    def choose(self, scores_BTE):
        routing = super().choose(scores_BTE)
        return routing._replace(share_BTK=SUM * routing.share_BTK)
