// The transformer's forward pass on the CPU: norm + q, k, v | rotate and append | attention by blocks | combine |
// o + residual | norm + gate, up | down + residual. A bar is a barrier of the team.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/cpu_backend.h"
#include "cpu/ops.h"

namespace nsrt::cpu {

std::size_t CpuBackend::kv_offset(std::int64_t layer, std::int64_t sequence, std::int64_t head,
                                  std::int64_t position) const {
  const std::int64_t row = (layer * shape_.rows + sequence) * config_.num_key_value_heads + head;
  return static_cast<std::size_t>((row * shape_.positions + position) * config_.head_dim) * item_size(kv_dtype_);
}

void CpuBackend::qkv(Team& team, const LayerWeights& w, std::int64_t rows) {
  const Operand in = normed(team, w.input_norm, rows);
  linear(team, w.q, in, rows, q_.data(), w.q.w.rows);
  linear(team, w.k, in, rows, k_.data(), w.k.w.rows);
  linear(team, w.v, in, rows, v_.data(), w.v.w.rows);
  team.barrier();
  mark(team, Stage::kQkv);
}

void CpuBackend::rope_and_append(Team& team, std::int64_t layer, std::span<const RowRef> rows) {
  const std::int64_t d = config_.head_dim, h_q = config_.num_attention_heads, h_kv = config_.num_key_value_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(d));
  float* rotated = scratch(team).row.data();
  const auto cache = [&](const float* from, Buffer<std::byte>& to, std::size_t offset) {
    if (kv_dtype_ == DType::kBFloat16)
      kernels_.to_bf16(from, d, reinterpret_cast<std::uint16_t*>(to.data() + offset));
    else
      std::memcpy(to.data() + offset, from, static_cast<std::size_t>(d) * sizeof(float));
  };
  const std::int64_t heads = h_q + h_kv;
  const Team::Range share = team.share(static_cast<std::int64_t>(rows.size()) * heads);
  for (std::int64_t item = share.begin; item < share.end; ++item) {
    const std::int64_t r = item / heads, h = item % heads;
    const RowRef& row = rows[static_cast<std::size_t>(r)];
    const float* cos = rope_cos_.data() + row.position * (d / 2);
    const float* sin = rope_sin_.data() + row.position * (d / 2);
    if (h < h_q) {
      float* q = q_.data() + (r * h_q + h) * d;
      kernels_.rope(q, cos, sin, d, rotated);
      kernels_.update(rotated, rotated, nullptr, scale, 0.0f, 0.0f, d, q);
    } else {
      const std::size_t offset = kv_offset(layer, row.sequence, h - h_q, row.position);
      kernels_.rope(k_.data() + (r * h_kv + h - h_q) * d, cos, sin, d, rotated);
      cache(rotated, k_cache_, offset);
      cache(v_.data() + (r * h_kv + h - h_q) * d, v_cache_, offset);
    }
  }
  team.barrier();
  mark(team, Stage::kRopeAppend);
}

void CpuBackend::attention_item(Team& team, std::int64_t layer, const RowRef& row, std::int64_t index,
                                std::int64_t block, std::int64_t head) {
  const std::int64_t d = config_.head_dim, h_q = config_.num_attention_heads;
  const std::int64_t g = h_q / config_.num_key_value_heads;
  const std::int64_t first = block * kAttentionBlock;
  const std::size_t offset = kv_offset(layer, row.sequence, head, first);
  const std::int64_t partial = (index * attention_blocks(shape_.positions) + block) * h_q + head * g;
  kernels_.attention_block({.q = q_.data() + (index * h_q + head * g) * d,
                            .k = k_cache_.data() + offset,
                            .v = v_cache_.data() + offset,
                            .kv_dtype = kv_dtype_,
                            .g = g,
                            .d_head = d,
                            .positions = std::min(kAttentionBlock, row.position + 1 - first),
                            .scores = scratch(team).scores.data(),
                            .out = partial_out_.data() + partial * d,
                            .max = partial_max_.data() + partial,
                            .sum = partial_sum_.data() + partial});
}

void CpuBackend::attention(Team& team, std::int64_t layer, std::span<const RowRef> rows) {
  const std::int64_t h_kv = config_.num_key_value_heads;
  std::int64_t items = 0;
  for (const RowRef& row : rows) items += attention_blocks(row.position + 1) * h_kv;
  const Team::Range share = team.share(items);
  std::int64_t item = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::int64_t blocks = attention_blocks(rows[r].position + 1);
    for (std::int64_t h = 0; h < h_kv; ++h) {
      for (std::int64_t b = 0; b < blocks; ++b, ++item) {
        if (item >= share.begin && item < share.end)
          attention_item(team, layer, rows[r], static_cast<std::int64_t>(r), b, h);
      }
    }
  }
  team.barrier();
}

void CpuBackend::combine_attention(Team& team, std::span<const RowRef> rows) {
  const std::int64_t d = config_.head_dim, h_q = config_.num_attention_heads;
  const std::int64_t max_blocks = attention_blocks(shape_.positions);
  Scratch& s = scratch(team);
  const Team::Range share = team.share(static_cast<std::int64_t>(rows.size()) * h_q);
  for (std::int64_t item = share.begin; item < share.end; ++item) {
    const std::int64_t r = item / h_q, first = r * max_blocks * h_q + item % h_q;
    const std::int64_t blocks = attention_blocks(rows[static_cast<std::size_t>(r)].position + 1);
    combine_attention_blocks(kernels_, partial_out_.data() + first * d, partial_max_.data() + first,
                             partial_sum_.data() + first, h_q, blocks, d, s.scores.data(), s.row.data());
    to_input(s.row.data(), d, input_row(attn_, item, d));
  }
  team.barrier();
  mark(team, Stage::kAttention);
}

void CpuBackend::feed_forward(Team& team, const LayerWeights& w, std::int64_t rows) {
  const std::int64_t d_ff = config_.intermediate_size, d = config_.hidden_size;
  const Operand in = normed(team, w.post_attention_norm, rows);
  const auto [begin, end] = product(team, w.gate, in, rows, gate_.data(), d_ff);
  product(team, w.up, in, rows, up_.data(), d_ff);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* gate = gate_.data() + r * d_ff + begin;
    kernels_.silu_mul(gate, w.gate.bias ? w.gate.bias + begin : nullptr, up_.data() + r * d_ff + begin,
                      w.up.bias ? w.up.bias + begin : nullptr, end - begin, gate);
    to_input(gate, end - begin,
             static_cast<std::byte*>(input_row(ff_, r, d_ff)) + static_cast<std::size_t>(begin) * input_size());
  }
  team.barrier();
  linear(team, w.down, {ff_.data(), d_ff}, rows, x_.data(), d, x_.data());
  team.barrier();
  mark(team, Stage::kMlp);
}

// x_ holds the rows' embeddings; leaves hidden_ of the sequences whose last row is among them.
void CpuBackend::run_backbone(Team& team, std::span<const RowRef> rows) {
  const std::int64_t d = config_.hidden_size, n = static_cast<std::int64_t>(rows.size());
  for (std::size_t l = 0; l < weights_.layers.size(); ++l) {
    const LayerWeights& w = weights_.layers[l];
    const auto layer = static_cast<std::int64_t>(l);
    qkv(team, w, n);
    rope_and_append(team, layer, rows);
    attention(team, layer, rows);
    combine_attention(team, rows);
    linear(team, w.o, {attn_.data(), w.o.w.cols}, n, x_.data(), d, x_.data());
    team.barrier();
    mark(team, Stage::kAttnOut);
    feed_forward(team, w, n);
  }
  const Team::Range share = team.share(n);
  for (std::int64_t r = share.begin; r < share.end; ++r) {
    const RowRef& row = rows[static_cast<std::size_t>(r)];
    if (row.last)
      kernels_.rms_norm(x_.data() + r * d, weights_.norm, d, static_cast<float>(config_.rms_norm_eps),
                        hidden_.data() + row.sequence * d);
  }
  team.barrier();
  mark(team, Stage::kMlp);
}

void CpuBackend::forward(std::span<const RowRef> rows, const float* embeds) {
  std::memcpy(x_.data(), embeds, rows.size() * static_cast<std::size_t>(config_.hidden_size) * sizeof(float));
  pool_.run([&](Team& team) { run_backbone(team, rows); });
}

void CpuBackend::advance_in_team(Team& team, std::span<const RowRef> rows) {
  const std::int64_t d = config_.hidden_size, images = plan_.images;
  project_in_team(team, tokens_.data(), images, x_.data());
  // All branches of an image go on with the same token.
  const auto [begin, end] = team.share(d, kColumnUnit);
  for (std::int64_t r = images; r < fm_rows(); ++r)
    std::copy(x_.data() + r % images * d + begin, x_.data() + r % images * d + end, x_.data() + r * d + begin);
  team.barrier();
  mark(team, Stage::kImageIn);
  run_backbone(team, rows);
}

void CpuBackend::advance(std::span<const RowRef> rows) {
  pool_.run([&](Team& team) { advance_in_team(team, rows); });
}

}  // namespace nsrt::cpu
