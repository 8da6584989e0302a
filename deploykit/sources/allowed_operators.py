"""The torch operators that a program in a file may call: arithmetic on tensors and containers.

Names without their namespace and without underscores at either end (``add_``, ``__not__`` and
``_convolution`` are ``add``, ``not`` and ``convolution``). `torchscript_scan` and `program_archive`
refuse whatever is not here (files, processes, printing, Python, other machines, raw storage) before
torch opens a file.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ATEN = _words(
    """
    abs acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm addmv addr
    affine_grid_generator alias all alpha_dropout amax amin aminmax and any append arange argmax
    argmin argsort as_strided as_tensor asin asinh assert_async assert_scalar
    assert_tensor_metadata atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d
    avg_pool3d baddbmm batch_norm bernoulli bilinear bitwise_and bitwise_left_shift bitwise_not
    bitwise_or bitwise_right_shift bitwise_xor block_diag bmm Bool broadcast_tensors broadcast_to
    bucketize cat cdist ceil celu channel_shuffle chunk clamp clamp_max clamp_min clear clip clone
    col2im column_stack complex concat concatenate conj conj_physical constant_pad_nd contains
    contiguous conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d
    convolution convolution_mode copy copysign cos cosh cosine_similarity count cross cummax
    cummin cumprod cumsum deg2rad Delete delitem dequantize derive_index detach device diag
    diag_embed diagonal dict diff dim dim_arange div divide dot dropout dsplit dstack einsum elu
    embedding embedding_bag embedding_bag_forward_only embedding_renorm empty empty_like
    empty_strided eq erf erfc exp exp2 expand expand_as expm1 extend eye
    fake_quantize_per_channel_affine fake_quantize_per_tensor_affine feature_alpha_dropout
    feature_dropout fft_fft fft_fft2 fft_ifft fft_ifft2 fft_irfft fft_irfft2 fft_rfft fft_rfft2
    fill fix flatten flip fliplr flipud Float FloatImplicit floor floor_divide floordiv fmax fmin
    fmod format frac frobenius_norm full full_like fused_rms_norm gather ge gelu get
    get_pool_ceil_padding getitem glu greater greater_equal grid_sampler grid_sampler_2d
    group_norm gru gt hann_window hardshrink hardsigmoid hardswish hardtanh heaviside hsplit
    hstack hypot im2col index index_add index_copy index_fill index_put index_put_impl
    index_select insert instance_norm Int int_repr interpolate IntImplicit invert is is_complex
    is_contiguous is_floating_point is_nonzero is_pinned isclose isfinite isinf isinstance isnan
    isnot item items keys kl_div l1_loss layer_norm le leaky_relu len lerp less less_equal lift
    lift_fresh linalg_cross linalg_det linalg_matrix_norm linalg_norm linalg_vector_norm linear
    linspace list local_scalar_dense log log10 log1p log2 log_sigmoid log_softmax logaddexp logdet
    logical_and logical_not logical_or logical_xor logit logspace logsumexp lshift lstm lstm_cell
    lt masked_fill masked_scatter masked_select matmul matrix_exp max max_pool1d
    max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
    maximum mean median meshgrid min minimum mish mm moveaxis movedim mse_loss msort mul
    multi_head_attention_forward multinomial multiply mv nan_to_num narrow native_batch_norm
    native_batch_norm_legit native_batch_norm_legit_no_training native_channel_shuffle
    native_dropout native_group_norm native_layer_norm native_multi_head_attention ndimension ne
    neg negative new_empty new_full new_ones new_zeros nonzero nonzero_numpy norm normal not
    not_equal nuclear_norm numel numpy_T one_hot ones ones_like or outer pack_padded_sequence pad
    pad_circular pad_enum pad_packed_sequence pairwise_distance permute pixel_shuffle
    pixel_unshuffle pop positive pow prelu prod q_scale q_zero_point quantile quantize_per_channel
    quantize_per_tensor quantize_per_tensor_dynamic rad2deg rand rand_like randint randint_like
    randn randn_like randperm range_length ravel real reciprocal reflection_pad1d reflection_pad2d
    reflection_pad3d relu relu6 remainder remove repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d requires_grad reshape reshape_alias reshape_as
    reshape_from_tensor resize resize_as resolve_conj resolve_neg reverse rms_norm rnn_relu
    rnn_tanh roll rot90 round rrelu rshift rsqrt rsub safe_softmax sample_dirichlet scalar_tensor
    ScalarImplicit scaled_dot_product_attention scaled_dot_product_flash_attention_for_cpu scatter
    scatter_add scatter_reduce searchsorted select selu set_item setitem sgn shape_as_tensor
    sigmoid sign silu sin sinc sinh size slice slice_scatter smooth_l1_loss softmax softmin
    softplus softshrink sort special_expit special_logit split split_with_sizes sqrt square
    squeeze stack standard_gamma std std_mean str stride sub subtract sum sym_constrain_range
    sym_constrain_range_for_size sym_numel sym_size sym_stride t take take_along_dim tan tanh
    tanhshrink tensor tensor_split tensordot threshold tile to to_copy topk trace
    transformer_encoder_layer_fwd transpose tril tril_indices triu triu_indices true_divide trunc
    type_as unbind unflatten unfold uniform unique unique2 unique_dim unsafe_chunk unsafe_index
    unsafe_split unsafe_split_with_sizes unsafe_view unsqueeze update upsample_bicubic2d
    upsample_bicubic2d_aa upsample_bilinear2d upsample_bilinear2d_aa upsample_lanczos2d_aa
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_nearest_exact1d upsample_nearest_exact2d upsample_nearest_exact3d
    upsample_trilinear3d values var var_mean vdot view view_as vsplit vstack warn weight_norm
    where xlogy xor zero zeros zeros_like
    """
)

#: ``ops.NAMESPACE.NAME``, by namespace.
OPERATORS = {
    "aten": ATEN,
    "prim": _words(
        """
        abs convert_element_type data device dtype EnumName EnumValue is_cpu is_cuda is_meta
        is_mkldnn is_quantized is_sparse is_vulkan itemsize layout max min ModuleContainerIndex
        name NumToTensor RaiseException rangelist requires_grad shape StringIndex tolist
        TupleIndex TupleUnpack type unchecked_cast unchecked_unwrap_optional Uninitialized
        """
    ),
    "quantized": _words(
        """
        add add_relu add_scalar add_scalar_relu batch_norm batch_norm1d batch_norm2d
        batch_norm2d_relu batch_norm3d batch_norm3d_relu batch_norm_relu cat cat_relu celu conv1d
        conv1d_dynamic conv1d_prepack conv1d_relu conv1d_unpack conv2d conv2d_add conv2d_add_relu
        conv2d_dilation conv2d_dynamic conv2d_groups conv2d_output_padding conv2d_padding
        conv2d_prepack conv2d_relu conv2d_stride conv2d_transpose conv2d_unpack conv3d
        conv3d_prepack conv3d_relu conv3d_unpack conv_prepack conv_transpose1d
        conv_transpose1d_prepack conv_transpose1d_unpack conv_transpose2d conv_transpose2d_prepack
        conv_transpose2d_unpack conv_transpose3d conv_transpose3d_prepack conv_transpose3d_unpack
        conv_unpack dropout elu embedding_byte embedding_byte_prepack group_norm hardswish
        instance_norm layer_norm leaky_relu linear linear_dynamic linear_prepack
        linear_prepack_fp16 linear_relu linear_relu_dynamic linear_unpack linear_unpack_fp16
        matmul max_pool1d max_pool2d mul mul_relu mul_scalar mul_scalar_relu prelu relu6 sigmoid
        softmax threshold
        """
    ),
    "torchvision": _words("deform_conv2d nms ps_roi_align roi_align roi_pool"),
}

#: What may be called by a bare name.
BUILTINS = _words(
    """
    abs all annotate any bool complex dict enumerate float getattr hasattr inf int isinstance len
    list max min nan range rangelist reversed round sorted str sum tuple unchecked_cast
    uninitialized zip
    """
)

#: Regions of an exported program that run without gradients or in another precision.
_REGIONS = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast"})


def is_allowed(namespace: str, name: str) -> bool:
    """Whether an operator is on the list; ``view_copy`` is, if ``view`` is."""
    if namespace == "higher_order":
        return name in _REGIONS
    known = OPERATORS.get(namespace, frozenset())
    bare = name.strip("_")
    return bare in known or bare.removesuffix("_copy") in known
