#include "cpu/ops.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/tables.h"

namespace nsrt::cpu {

void linear(const KernelTable& kernels, const LinearParams& p, Pool& pool) {
  const bool dot = p.round_x && kernels.has_dot && p.w.dtype == DType::kBFloat16;
  std::vector<std::uint16_t> rounded;
  if (dot) {
    rounded.resize(static_cast<std::size_t>(p.b * p.w.cols));
    kernels.to_bf16(p.x, p.b * p.w.cols, rounded.data());
  }
  // The raw products are kept apart from y, which may be the residual.
  std::vector<float> raw(static_cast<std::size_t>(p.b * p.w.rows));
  pool.run([&](Team& team) {
    const auto [begin, end] = team.share(p.w.rows, kColumnUnit);
    if (begin == end) return;
    std::vector<std::uint16_t> packed(static_cast<std::size_t>(dot && kernels.packs ? packed_size(p.b, p.w.cols) : 0));
    kernels.matmul({.w = p.w.data,
                    .w_dtype = p.w.dtype,
                    .cols = p.w.cols,
                    .x = dot ? static_cast<const void*>(rounded.data()) : p.x,
                    .x_dtype = dot ? DType::kBFloat16 : DType::kFloat32,
                    .x_stride = p.w.cols,
                    .y = raw.data(),
                    .y_stride = p.w.rows,
                    .n0 = begin,
                    .n1 = end,
                    .rows = p.b,
                    .packed = packed.data()});
    for (std::int64_t r = 0; r < p.b; ++r) {
      const std::int64_t at = r * p.w.rows + begin;
      kernels.epilogue(raw.data() + at, p.bias ? p.bias + begin : nullptr, p.residual ? p.residual + at : nullptr,
                       p.silu, end - begin, p.y + at);
    }
  });
}

void rms_norm(const KernelTable& kernels, const RmsNormParams& p) {
  for (std::int64_t r = 0; r < p.b; ++r) kernels.rms_norm(p.x + r * p.d, p.weight, p.d, p.eps, p.y + r * p.d);
}

void layer_norm(const KernelTable& kernels, const LayerNormParams& p) {
  for (std::int64_t r = 0; r < p.b; ++r) {
    const std::int64_t at = r * p.d;
    kernels.layer_norm(p.x + at, p.weight, p.bias, p.shift ? p.shift + at : nullptr, p.scale ? p.scale + at : nullptr,
                       p.d, p.eps, p.y + at);
  }
}

void rope(const KernelTable& kernels, const RopeParams& p) {
  const std::int64_t half = p.d_head / 2;
  std::vector<float> angles(static_cast<std::size_t>(2 * half));
  for (std::int64_t r = 0; r < p.b; ++r) {
    rope_angles(p.positions[r], p.theta, p.d_head, angles.data(), angles.data() + half);
    for (std::int64_t h = 0; h < p.heads; ++h) {
      const std::int64_t at = (r * p.heads + h) * p.d_head;
      kernels.rope(p.x + at, angles.data(), angles.data() + half, p.d_head, p.y + at);
    }
  }
}

void combine_attention_blocks(const KernelTable& kernels, const float* out, const float* max, const float* sum,
                              std::int64_t stride, std::int64_t blocks, std::int64_t d_head, float* factors, float* y) {
  float top = max[0];
  for (std::int64_t b = 1; b < blocks; ++b) top = std::max(top, max[b * stride]);
  float total = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    factors[b] = std::exp(max[b * stride] - top);
    total += factors[b] * sum[b * stride];
  }
  for (std::int64_t b = 0; b < blocks; ++b) factors[b] /= total;
  kernels.weighted_sum(out, stride * d_head, factors, blocks, d_head, y);
}

void attention(const KernelTable& kernels, const AttentionParams& p, Pool& pool) {
  const std::int64_t d = p.d_head, g = p.h_q / p.h_kv;
  const std::int64_t most = attention_blocks(*std::max_element(p.lengths, p.lengths + p.b));
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  pool.run([&](Team& team) {
    const auto floats = [](std::int64_t n) { return std::vector<float>(static_cast<std::size_t>(n)); };
    std::vector<float> q = floats(g * d), scores = floats(kMostHeads * kAttentionBlock), factors = floats(most);
    std::vector<float> out = floats(most * g * d), max = floats(most * g), sum = floats(most * g);
    const auto [begin, end] = team.share(p.b * p.h_kv);
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t first_q = item * g * d;  // [b, h_q, d] is [b, h_kv, g, d]
      kernels.update(p.q + first_q, p.q + first_q, nullptr, scale, 0, 0, g * d, q.data());
      const std::int64_t length = p.lengths[item / p.h_kv], blocks = attention_blocks(length);
      for (std::int64_t b = 0; b < blocks; ++b) {
        const std::size_t at =
            static_cast<std::size_t>((item * p.capacity + b * kAttentionBlock) * d) * item_size(p.kv_dtype);
        kernels.attention_block({.q = q.data(),
                                 .k = static_cast<const std::byte*>(p.k) + at,
                                 .v = static_cast<const std::byte*>(p.v) + at,
                                 .kv_dtype = p.kv_dtype,
                                 .g = g,
                                 .d_head = d,
                                 .positions = std::min(kAttentionBlock, length - b * kAttentionBlock),
                                 .scores = scores.data(),
                                 .out = out.data() + b * g * d,
                                 .max = max.data() + b * g,
                                 .sum = sum.data() + b * g});
      }
      for (std::int64_t h = 0; h < g; ++h)
        combine_attention_blocks(kernels, out.data() + h * d, max.data() + h, sum.data() + h, g, blocks, d,
                                 factors.data(), p.y + first_q + h * d);
    }
  });
}

void silu_mul(const KernelTable& kernels, const SiluMulParams& p) {
  kernels.silu_mul(p.gate, nullptr, p.up, nullptr, p.n, p.y);
}

// v = vu + g (vc - vu), or vu + gi (vi - vu) + g (vc - vi), as sums weighted per branch.
void guidance(const KernelTable& kernels, const GuidanceParams& p) {
  const float g = p.guidance, gi = p.image_guidance;
  const float weights[3][3] = {{1, 0, 0}, {g, 1 - g, 0}, {g, gi - g, 1 - gi}};
  const std::int64_t d = p.d_tok;
  for (std::int64_t i = 0; i < p.images; ++i) {
    const float* v = p.v + i * d;
    float* y = p.y + i * d;
    kernels.weighted_sum(v, p.images * d, weights[p.branches - 1], p.branches, d, y);
    if (!p.renorm || p.branches == 1) continue;  // without guidance there is nothing to cap
    double conditional = 0, combined = 0;
    for (std::int64_t c = 0; c < d; ++c) {
      conditional += static_cast<double>(v[c]) * static_cast<double>(v[c]);
      combined += static_cast<double>(y[c]) * static_cast<double>(y[c]);
    }
    const auto scale = static_cast<float>(std::min(1.0, std::sqrt(conditional) / (std::sqrt(combined) + 1e-6)));
    for (std::int64_t c = 0; c < d; ++c) y[c] *= scale;
  }
}

void solver_update(const KernelTable& kernels, const SolverUpdateParams& p) {
  kernels.update(p.x, p.v, p.noise, p.cx, p.cv, p.ce, p.n, p.x);
}

}  // namespace nsrt::cpu
