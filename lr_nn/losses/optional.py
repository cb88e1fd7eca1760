"""The optional methods of a loss: what they are, and what needs them."""

OPTIONAL = {
    "mean": "mean(eta), the mean of the response, which lr_nn.predict needs",
    "hessian_multiply": "hessian_multiply(eta, y, v), the product (∂²ℓ/∂η²) v, which curvature.hessian needs",
    "fisher_multiply": "fisher_multiply(eta, v), the product F v with the Fisher in η, which curvature.ggn and Newton "
    "steps need (curvature.empirical_fisher does without)",
    "fisher_factor": "fisher_factor(eta), a factor of the Fisher in η, which the diagonal of curvature.ggn and exact "
    "K-FAC need (kind='empirical' does without)",
    "sample": "sample(eta, key), targets drawn from p(y | η), which sampled estimates of the Fisher need",
    "constant": "constant(mean), the η of the best constant model, which fits with a certificate need",
    "recession": "recession(y), the directions in which ℓ never grows, which fits with a certificate need",
    "curvature": "curvature(eta, y), the second derivative ∂²ℓ/∂η², which curvature.hessian needs",
    "information": "information(eta), the Fisher E[(∂ℓ/∂η)²], which curvature.ggn, exact K-FAC and Newton steps need "
    "(curvature.empirical_fisher does without)",
}

# `Separable` derives each of these methods from an elementwise one.
ELEMENTWISE = {
    "hessian_multiply": "curvature",
    "fisher_multiply": "information",
    "fisher_factor": "information",
}
