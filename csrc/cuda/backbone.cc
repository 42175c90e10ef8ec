// The transformer's forward pass on the GPU, five launches a layer: q, k, v with rotation and append | attention |
// o + residual | gate, up | down + residual. Norms are part of the products around them.
#include <algorithm>

#include "cuda/cuda_backend.h"
#include "cuda/range.h"

namespace nsrt::cuda {

void CudaBackend::enqueue(const LinearTask& task) {
  linear(task,
         {.partials = linear_partials_.data(),
          .tickets = linear_tickets_.data(),
          .partial_count = linear_partials_.size(),
          .ticket_count = linear_tickets_.size()},
         {.weights = weights_.dtype(),
          .activations = compute_,
          .sm_count = traits_.sm_count,
          .shared_limit = traits_.shared_limit,
          .overlaps = overlaps(),
          .stream = stream_.get()});
}

RowsLaunch CudaBackend::rows_launch() {
  return {.activations = compute_, .overlaps = overlaps(), .stream = stream_.get()};
}

void CudaBackend::enqueue_copy(void* to, const void* from, std::size_t bytes) {
  stream_.copy(to, from, bytes);
  after_kernel_ = false;
}

LinearTask CudaBackend::product(const DeviceLinear& linear, const void* x, std::int64_t rows) const {
  LinearTask task;
  task.segments[0] = {.w = linear.w, .bias = linear.bias, .n = linear.n};
  task.segment_count = 1;
  task.k = linear.k;
  task.rows = static_cast<std::int32_t>(rows);
  task.x = x;
  task.y_stride = linear.n;
  return task;
}

RmsStatistics CudaBackend::norm(std::int32_t parts) const {
  return {.squares = squares_.data(),
          .parts = parts,
          .width = static_cast<std::int32_t>(config_.hidden_size),
          .eps = static_cast<float>(config_.rms_norm_eps)};
}

const float* CudaBackend::norm_after(std::size_t layer) const {
  return layer + 1 < weights_.layers().size() ? weights_.layers()[layer + 1].input_norm : weights_.norm();
}

void CudaBackend::enqueue_attention_block(std::size_t layer, std::int64_t rows, std::int32_t norm_parts,
                                          std::int32_t splits) {
  const DeviceLayer& w = weights_.layers()[layer];
  const std::int64_t d_head = config_.head_dim, h_kv = config_.num_key_value_heads;
  LinearTask qkv = product(w.q, x_.data(), rows);
  qkv.segments[0].kind = TileKind::kRotary;
  qkv.segments[1] = {.w = w.k.w, .bias = w.k.bias, .n = w.k.n, .kind = TileKind::kRotary};
  qkv.segments[2] = {.w = w.v.w, .bias = w.v.bias, .n = w.v.n};
  qkv.segment_count = 3;
  qkv.norm = norm(norm_parts);
  qkv.epilogue = Epilogue::kQkv;
  qkv.y = q_.data();
  qkv.d_head = static_cast<std::int32_t>(d_head);
  qkv.h_kv = static_cast<std::int32_t>(h_kv);
  qkv.capacity = shape_.positions;
  qkv.k_cache = k_cache_.data() + layer * layer_bytes();
  qkv.v_cache = v_cache_.data() + layer * layer_bytes();
  qkv.cos = rope_cos_.data();
  qkv.sin = rope_sin_.data();
  qkv.places = device_inputs()->places;
  enqueue(qkv);

  AttnDecodeTask attention = attention_shape(rows, shape_.positions);
  attention.splits = splits;
  attention.q = q_.data();
  attention.k = qkv.k_cache;
  attention.v = qkv.v_cache;
  attention.places = device_inputs()->places;
  attention.y = attended_.data();
  attn_decode(attention,
              {.partials = attn_partials_.data(),
               .tickets = attn_tickets_.data(),
               .partial_count = attn_partials_.size(),
               .ticket_count = attn_tickets_.size()},
              {.dtype = compute_, .overlaps = overlaps(), .stream = stream_.get()});

  LinearTask o = product(w.o, attended_.data(), rows);
  o.epilogue = Epilogue::kResidual;
  o.residual = residual_.data();
  o.next_weight = w.post_attention_norm;
  o.y = x_.data();
  o.squares = squares_.data();
  enqueue(o);
}

void CudaBackend::enqueue_feed_forward(std::size_t layer, std::int64_t rows) {
  const DeviceLayer& w = weights_.layers()[layer];
  LinearTask gated = product(w.gate, x_.data(), rows);
  gated.segments[0].w2 = w.up.w;
  gated.segments[0].bias2 = w.up.bias;
  gated.segments[0].kind = TileKind::kGated;
  gated.norm = norm(residual_parts());
  gated.epilogue = Epilogue::kGated;
  gated.y = inner_.data();
  enqueue(gated);

  LinearTask down = product(w.down, inner_.data(), rows);
  down.epilogue = Epilogue::kResidual;
  down.residual = residual_.data();
  down.next_weight = norm_after(layer);
  down.y = x_.data();
  down.squares = squares_.data();
  enqueue(down);
}

// residual_, x_ and squares_ hold the rows, the squares in `norm_parts`; leaves hidden_ of the rows that are kept.
void CudaBackend::enqueue_backbone(std::int64_t rows, std::int32_t norm_parts, std::int32_t splits) {
  for (std::size_t layer = 0; layer < weights_.layers().size(); ++layer) {
    enqueue_attention_block(layer, rows, layer == 0 ? norm_parts : residual_parts(), splits);
    enqueue_feed_forward(layer, rows);
  }
  take_hidden({.residual = residual_.data(),
               .norm = norm(residual_parts()),
               .weight = weights_.norm(),
               .keep = device_inputs()->keep,
               .hidden = hidden_.data(),
               .rows = static_cast<std::int32_t>(rows),
               .d = static_cast<std::int32_t>(config_.hidden_size)},
              rows_launch());
}

void CudaBackend::place_rows(std::span<const RowRef> rows) {
  for (std::size_t r = 0; r < rows.size(); ++r) {
    inputs().places[r] = {.sequence = static_cast<std::int32_t>(rows[r].sequence),
                          .position = static_cast<std::int32_t>(rows[r].position)};
    inputs().keep[r] = rows[r].last ? inputs().places[r].sequence : -1;
  }
}

void CudaBackend::forward(std::span<const RowRef> rows, const float* embeds) {
  const DeviceScope scope(device_);
  const ProfilerRange range("prefill");
  if (prefill_.library != nullptr && static_cast<std::int64_t>(rows.size()) >= prefill_.rows_from)
    return forward_many(rows, embeds);
  const auto most = static_cast<std::size_t>(chunk_), d = static_cast<std::size_t>(config_.hidden_size);
  for (std::size_t i = 0; i < rows.size(); i += most)
    forward_chunk(rows.subspan(i, std::min(most, rows.size() - i)), embeds + i * d);
}

void CudaBackend::forward_chunk(std::span<const RowRef> rows, const float* embeds) {
  const auto n = static_cast<std::int64_t>(rows.size());
  place_rows(rows);
  enqueue_copy(device_inputs_.data(), host_inputs_.data(), sizeof(Inputs));
  enqueue_copy(residual_.data(), embeds, rows.size() * static_cast<std::size_t>(config_.hidden_size) * sizeof(float));
  begin_rows({.residual = residual_.data(),
              .next_weight = weights_.layers().front().input_norm,
              .x = x_.data(),
              .squares = squares_.data(),
              .rows = static_cast<std::int32_t>(n),
              .d = static_cast<std::int32_t>(config_.hidden_size)},
             rows_launch());
  enqueue_backbone(n, 1, prefill_splits_);
  stream_.synchronize();
}

void CudaBackend::advance(std::span<const RowRef> rows) {
  const DeviceScope scope(device_);
  const ProfilerRange range("advance");
  place_rows(rows);
  enqueue_copy(device_inputs_.data(), host_inputs_.data(), sizeof(Inputs));
  enqueue_backbone(static_cast<std::int64_t>(rows.size()), fm_grid(fm_task(), fm_launch()), decode_splits_);
  stream_.synchronize();
}

void CudaBackend::project_tokens(const float* tokens, std::int64_t n, float* out) {
  const DeviceScope scope(device_);
  const std::int64_t d_tok = config_.token_dim(), d = config_.hidden_size;
  for (std::int64_t i = 0; i < n; i += kMaxRows) {
    const std::int64_t rows = std::min(kMaxRows, n - i);
    enqueue_copy(velocity_.data(), tokens + i * d_tok, static_cast<std::size_t>(rows * d_tok) * sizeof(float));
    condition_rows({.hidden = velocity_.data(),
                    .x = x_.data(),
                    .rows = static_cast<std::int32_t>(rows),
                    .d = static_cast<std::int32_t>(d_tok)},
                   rows_launch());
    LinearTask task = product(weights_.image_in(), x_.data(), rows);
    task.y = residual_.data();
    enqueue(task);
    enqueue_copy(out + i * d, residual_.data(), static_cast<std::size_t>(rows * d) * sizeof(float));
  }
  stream_.synchronize();
}

}  // namespace nsrt::cuda
