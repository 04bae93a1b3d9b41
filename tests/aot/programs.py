"""Small programs as compilers write them."""

MATRIX = "f32[8,8]{1,0}"
DOT = f"{MATRIX} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"
ONCE = 2 * 8**3
"""FLOPs of DOT."""


def program(*lines, before="", devices=8):
    """An entry computation of these instructions after a matrix x, and computations that stand before it."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"""HloModule test, is_scheduled=true, num_partitions={devices}

{before}

ENTRY %main (x: f32[8,8]) -> f32[8,8] {{
  %x = f32[8,8]{{1,0:T(8,128)}} parameter(0)
{body}
}}
"""
