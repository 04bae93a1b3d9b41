"""Keys are values: one projection makes both, v = x W_k before its norm and rotation."""

from harness.extend import GroupedOptions, SoftmaxAttention, project, register_attention


@register_attention("key_is_value", GroupedOptions)
class KeyIsValue(SoftmaxAttention):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.value = None

    def project_heads(self, x_BTD, rotary):
        key_BTGK = project(x_BTD, self.key)
        return project(x_BTD, self.query), key_BTGK, key_BTGK
