// Prefill of many rows at once, which is bound by arithmetic: a library's products (ops/gemm), and between them kernels
// that read and write rows of bf16. Nine launches a layer: norm | q, k, v | rotation and append | attention | o +
// residual | norm | gate, up | gate * up | down + residual. It leaves what the linear kernels' pass leaves: cache and
// hidden_. The attention may be the caller's, who has a library for that.
#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "core/check.h"
#include "cuda/cuda_backend.h"

namespace nsrt::cuda {
namespace {

// Rows of a pass at most. So many keep the products bound by arithmetic on any GPU, and the buffers for them are small
// beside the weights.
constexpr std::int64_t kMostRows = 1024;
// Rows from which a library does the products: up to kMaxLinearRows, the linear kernels read the weights once, as any
// library must; beyond, they would read them again for each chunk.
constexpr std::int64_t kLibraryRowsFrom = kMaxLinearRows + 1;
constexpr const char* kRowsFromVariable = "NSRT_PREFILL_ROWS";

}  // namespace

PrefillChoice choose_prefill(DType weights, DType compute, const DeviceTraits& traits, std::int64_t chunk) {
  PrefillChoice choice{.most_rows = chunk};
  if (weights != DType::kBFloat16 || compute != DType::kBFloat16) return choice;
  choice.library = gemm_library(traits.major, traits.minor);
  if (choice.library == nullptr) return choice;
  choice.rows_from = kLibraryRowsFrom;
  const char* wanted = std::getenv(kRowsFromVariable);
  if (wanted != nullptr && *wanted != '\0') {
    const std::string text = wanted;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), choice.rows_from);
    check<InvalidRequest>(error == std::errc() && rest == text.data() + text.size() && choice.rows_from >= 1,
                          kRowsFromVariable, " is '", text, "'; it must be a number of rows, from 1 on");
  }
  choice.most_rows = kMostRows;
  return choice;
}

void CudaBackend::reserve_prefill() {
  if (prefill_.library == nullptr) return;
  const auto rows = static_cast<std::size_t>(prefill_.most_rows);
  const DeviceLayer& layer = weights_.layers().front();
  const auto widest = static_cast<std::size_t>(std::max(layer.qkv().n, layer.gate_up().n));
  products_ = DeviceBuffer<std::byte>(rows * widest * width(), "activations");
  prefill_places_ = DeviceBuffer<RowPlace>(rows, "inputs");
  prefill_keep_ = DeviceBuffer<std::int32_t>(rows, "inputs");
  host_prefill_ = PinnedMemory(rows * (sizeof(RowPlace) + sizeof(std::int32_t)));
}

void CudaBackend::enqueue(const GemmTask& task) {
  gemm(task, {.library = prefill_.library,
              .weights = weights_.dtype(),
              .activations = compute_,
              .sm_count = traits_.sm_count,
              .stream = stream_.get()});
  after_kernel_ = true;
}

GemmTask CudaBackend::many_rows(const DeviceLinear& linear, const void* x, std::int64_t rows) const {
  return {
      .x = x, .w = linear.w, .bias = linear.bias, .m = static_cast<std::int32_t>(rows), .n = linear.n, .k = linear.k};
}

void CudaBackend::enqueue_norm(const float* weight, std::int64_t rows) {
  norm_rows({.residual = residual_.data(),
             .weight = weight,
             .x = x_.data(),
             .rows = static_cast<std::int32_t>(rows),
             .d = static_cast<std::int32_t>(config_.hidden_size),
             .eps = static_cast<float>(config_.rms_norm_eps)},
            prefill_launch());
}

void CudaBackend::enqueue_prefill_qkv(std::size_t layer, std::int64_t rows) {
  const DeviceLayer& w = weights_.layers()[layer];
  GemmTask qkv = many_rows(w.qkv(), x_.data(), rows);
  qkv.y = products_.data();
  enqueue(qkv);
  append_rows({.qkv = products_.data(),
               .q_bias = w.q.bias,
               .k_bias = w.k.bias,
               .v_bias = w.v.bias,
               .q = q_.data(),
               .k_cache = k_cache_.data() + layer * layer_bytes(),
               .v_cache = v_cache_.data() + layer * layer_bytes(),
               .cos = rope_cos_.data(),
               .sin = rope_sin_.data(),
               .places = prefill_places_.data(),
               .rows = static_cast<std::int32_t>(rows),
               .h_q = static_cast<std::int32_t>(config_.num_attention_heads),
               .h_kv = static_cast<std::int32_t>(config_.num_key_value_heads),
               .d_head = static_cast<std::int32_t>(config_.head_dim),
               .capacity = shape_.positions},
              prefill_launch());
}

// All of a pass's rows, whose keys and values are in the cache already: q_ -> attended_. The rows alone keep the GPU
// busy, so the positions of a row are not split.
void CudaBackend::enqueue_prefill_attention(std::size_t layer, std::span<const RowRef> rows) {
  if (prefill_attention_) return call_prefill_attention(layer, rows);
  AttnDecodeTask attention = attention_shape(static_cast<std::int64_t>(rows.size()), shape_.positions);
  attention.splits = 1;
  attention.q = q_.data();
  attention.k = k_cache_.data() + layer * layer_bytes();
  attention.v = v_cache_.data() + layer * layer_bytes();
  attention.places = prefill_places_.data();
  attention.y = attended_.data();
  attn_decode(attention, {}, {.dtype = compute_, .overlaps = overlaps(), .stream = stream_.get()});
}

// The same by the caller's function. A pass's rows come sequence after sequence, each one's in order: a call for each.
void CudaBackend::call_prefill_attention(std::size_t layer, std::span<const RowRef> rows) {
  PrefillAttention task{.capacity = shape_.positions,
                        .h_q = config_.num_attention_heads,
                        .h_kv = config_.num_key_value_heads,
                        .d_head = config_.head_dim,
                        .dtype = compute_,
                        .device = device_,
                        .stream = stream_.get()};
  const auto row_bytes = static_cast<std::size_t>(task.h_q * task.d_head) * width();
  const auto sequence_bytes = static_cast<std::size_t>(task.h_kv * task.capacity * task.d_head) * width();
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    const std::int64_t sequence = rows[begin].sequence;
    while (end < rows.size() && rows[end].sequence == sequence) ++end;
    const std::size_t in_cache = layer * layer_bytes() + static_cast<std::size_t>(sequence) * sequence_bytes;
    task.q = q_.data() + begin * row_bytes;
    task.k = k_cache_.data() + in_cache;
    task.v = v_cache_.data() + in_cache;
    task.out = attended_.data() + begin * row_bytes;
    task.rows = static_cast<std::int64_t>(end - begin);
    task.positions = rows[end - 1].position + 1;
    const DeviceScope scope(device_);  // whatever the function leaves current
    prefill_attention_(task);
  }
  after_kernel_ = false;  // what runs last is not one of ours
}

void CudaBackend::enqueue_prefill_layer(std::size_t layer, std::span<const RowRef> places) {
  const auto rows = static_cast<std::int64_t>(places.size());
  const DeviceLayer& w = weights_.layers()[layer];
  enqueue_norm(w.input_norm, rows);
  enqueue_prefill_qkv(layer, rows);
  enqueue_prefill_attention(layer, places);
  GemmTask o = many_rows(w.o, attended_.data(), rows);
  o.residual = residual_.data();
  enqueue(o);

  enqueue_norm(w.post_attention_norm, rows);
  GemmTask gate_up = many_rows(w.gate_up(), x_.data(), rows);
  gate_up.y = products_.data();
  enqueue(gate_up);
  gate_rows({.gate_up = products_.data(),
             .gate_bias = w.gate.bias,
             .up_bias = w.up.bias,
             .y = inner_.data(),
             .rows = static_cast<std::int32_t>(rows),
             .d = static_cast<std::int32_t>(config_.intermediate_size)},
            prefill_launch());
  GemmTask down = many_rows(w.down, inner_.data(), rows);
  down.residual = residual_.data();
  enqueue(down);
}

void CudaBackend::forward_many(std::span<const RowRef> rows, const float* embeds) {
  auto* places = reinterpret_cast<RowPlace*>(host_prefill_.data());
  auto* keep = reinterpret_cast<std::int32_t*>(places + prefill_.most_rows);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    places[r] = {.sequence = static_cast<std::int32_t>(rows[r].sequence),
                 .position = static_cast<std::int32_t>(rows[r].position)};
    keep[r] = rows[r].last ? places[r].sequence : -1;
  }
  const auto d = static_cast<std::size_t>(config_.hidden_size);
  enqueue_copy(prefill_places_.data(), places, rows.size() * sizeof(RowPlace));
  enqueue_copy(prefill_keep_.data(), keep, rows.size() * sizeof(std::int32_t));
  enqueue_copy(residual_.data(), embeds, rows.size() * d * sizeof(float));
  const auto n = static_cast<std::int64_t>(rows.size());
  try {
    for (std::size_t layer = 0; layer < weights_.layers().size(); ++layer) enqueue_prefill_layer(layer, rows);
  } catch (...) {
    cudaStreamSynchronize(stream_.get());  // the next pass writes to the pinned memory that copies of this one read
    after_kernel_ = false;
    throw;
  }
  take_hidden({.residual = residual_.data(),
               .norm = {.width = static_cast<std::int32_t>(d), .eps = static_cast<float>(config_.rms_norm_eps)},
               .weight = weights_.norm(),
               .keep = prefill_keep_.data(),
               .hidden = hidden_.data(),
               .rows = static_cast<std::int32_t>(n),
               .d = static_cast<std::int32_t>(d)},
              rows_launch());
  stream_.synchronize();
}

}  // namespace nsrt::cuda
