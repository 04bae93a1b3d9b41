"""SOAP-Muon: the update of SOAP is orthogonalised."""

import optax

from harness.extend import (
    SoapOptions,
    adam_sized,
    each_matrix,
    orthogonal_factor,
    partition,
    per_matrix,
    register_optimizer,
    scale_by_soap,
)


@register_optimizer("soap_muon", SoapOptions)
def soap_muon(parameters, options, learning_rate):
    orthogonal = each_matrix(lambda u_LIO: adam_sized(orthogonal_factor(u_LIO)))
    matrices = per_matrix(parameters, optax.chain(scale_by_soap(options), orthogonal))
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    return parameters.descent(partition(parameters, matrices=matrices, others=adam), learning_rate)
