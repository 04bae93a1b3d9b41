"""Dense layer beside experts: y = N2(swiglu(N1 x)) + N4(experts(N3 x)), a norm before and after each."""

from harness.extend import MoE, MoEOptions, SwiGLU, register_experts


def dense_flops(context, options):
    return 3 * 2.0 * context.shape.width * context.shape.ffn


@register_experts("dense_beside_experts", MoEOptions, dense_flops)
class DenseBesideExperts(MoE):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.dense = SwiGLU(context, options)
        self.dense_norm, self.dense_out_norm = (context.norm(context.shape.width) for _ in range(2))
        self.expert_norm, self.expert_out_norm = (context.norm(context.shape.width) for _ in range(2))

    def __call__(self, x_BTD):
        expert_BTD, statistics = super().__call__(self.expert_norm(x_BTD))
        dense_BTD = self.dense(self.dense_norm(x_BTD))
        return self.dense_out_norm(dense_BTD) + self.expert_out_norm(expert_BTD), statistics
