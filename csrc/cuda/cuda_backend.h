// The CUDA backend: state and weights on one GPU, one stream, and a recorded graph for a whole token, so that the host
// launches once a token and waits for 64 numbers. Several backends may share a device.
//
// Rows of activations go through a forward pass as a residual stream in float32 and, beside it, the next product's
// input: the residual times the next norm's weight, with sums of squares; the product itself applies 1 / rms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "cuda/device_weights.h"
#include "cuda/ops/attn_decode/attn_decode.h"
#include "cuda/ops/fm_head/fm_head.h"
#include "cuda/ops/gemm/gemm.h"
#include "cuda/ops/linear/linear.h"
#include "cuda/ops/prefill/prefill.h"
#include "cuda/ops/rows/rows.h"
#include "cuda/runtime.h"

namespace nsrt::cuda {

// What the host says about one forward pass or token. The noise [1 + steps, images, d_tok] follows it in memory.
struct Inputs {
  RowPlace places[kMaxLinearRows];
  std::int32_t keep[kMaxLinearRows];  // the sequence whose hidden state a row becomes, or -1
  std::int32_t token = 0;
  std::uint32_t fm_launches = 0;  // of this plan
  std::int32_t unused[2] = {};
  FmInputs fm;
};
static_assert(sizeof(Inputs) % 16 == 0 && offsetof(Inputs, fm) + sizeof(FmInputs) == sizeof(Inputs));

// Which of two ways rows of a prompt go: through a library's products, so many at once, or through the linear kernels.
struct PrefillChoice {
  const GemmLibrary* library = nullptr;  // null: the linear kernels, always
  std::int64_t rows_from = 0;            // the fewest that go through the library
  std::int64_t most_rows = 0;            // of a pass, either way
};
// `chunk` is what the linear kernels take. The environment variable NSRT_PREFILL_ROWS replaces `rows_from`; throws
// InvalidRequest where it is no number of rows.
PrefillChoice choose_prefill(DType weights, DType compute, const DeviceTraits& traits, std::int64_t chunk);

// The FM head of a model for so many rows; the rest of the task is still to be filled in.
FmHeadTask fm_shape(const ModelConfig& config, std::int64_t branches, std::int64_t images);

class CudaBackend final : public Backend {
 public:
  // `device` is the calling thread's. Uploads the weights.
  CudaBackend(const ModelWeights& weights, DType compute, int device, const DeviceTraits& traits);

  std::string name() const override;
  int threads() const override { return 1; }
  std::int64_t max_chunk() const override { return prefill_.most_rows; }
  MemoryUse plan(const StateShape& shape) const override;
  MemoryUse memory() const override;
  std::uint64_t available() const override;
  void reserve(const StateShape& shape) override;
  void set_plan(const DecodePlan& plan) override;

  bool takes_prefill_attention() const override { return prefill_.library != nullptr; }
  void set_prefill_attention(PrefillAttentionFn attention) override { prefill_attention_ = std::move(attention); }

  void project_tokens(const float* tokens, std::int64_t n, float* out) override;
  void forward(std::span<const RowRef> rows, const float* embeds) override;
  void advance(std::span<const RowRef> rows) override;
  void condition(std::int64_t token) override;
  void modulate() override;
  void start(const float* noise) override;
  void step(std::int64_t index, const TokenArgs& args) override;
  void finish(float* out) override;
  // One launch of the recorded token.
  void decode_token(const TokenArgs& args) override;
  std::vector<float> state(StateBuffer which) const override;

 private:
  // What a request decides, in elements.
  struct Sizes {
    std::size_t cache = 0, rope = 0, attn_partials = 0, attn_tickets = 0;
    std::size_t times = 0, modulation_inputs = 0, modulations = 0, noise = 0;
  };
  Sizes sizes(const StateShape& shape) const;
  AttnDecodeTask attention_shape(std::int64_t rows, std::int64_t positions) const;
  std::uint64_t fixed_bytes() const;
  void reserve_rows();
  void reserve_workspaces();
  void reserve_rope(std::int64_t positions);

  // -- how things are launched
  std::size_t width() const { return item_size(compute_); }  // of a number
  std::int64_t rows_of_token() const { return plan_.branches * plan_.images; }
  std::int64_t times() const { return static_cast<std::int64_t>(plan_.solver.times.size()); }
  // A kernel may overlap with a kernel before it, not with a copy.
  bool overlaps() { return std::exchange(after_kernel_, true); }
  RowsLaunch rows_launch();
  PrefillLaunch prefill_launch() { return {.overlaps = overlaps(), .stream = stream_.get()}; }
  void enqueue(const LinearTask& task);
  void enqueue(const GemmTask& task);
  void enqueue_copy(void* to, const void* from, std::size_t bytes);

  // -- backbone.cc; what begins with "enqueue" does not wait
  LinearTask product(const DeviceLinear& linear, const void* x, std::int64_t rows) const;
  RmsStatistics norm(std::int32_t parts) const;
  // Squares of the residual stream after o and down.
  std::int32_t residual_parts() const {
    return static_cast<std::int32_t>((config_.hidden_size + kTileRows - 1) / kTileRows);
  }
  const float* norm_after(std::size_t layer) const;
  // Of one of the caches.
  std::size_t layer_bytes() const {
    return static_cast<std::size_t>(shape_.rows * config_.num_key_value_heads * shape_.positions * config_.head_dim) *
           width();
  }
  void forward_chunk(std::span<const RowRef> rows, const float* embeds);
  void place_rows(std::span<const RowRef> rows);
  void enqueue_backbone(std::int64_t rows, std::int32_t norm_parts, std::int32_t splits);
  void enqueue_attention_block(std::size_t layer, std::int64_t rows, std::int32_t norm_parts, std::int32_t splits);
  void enqueue_feed_forward(std::size_t layer, std::int64_t rows);

  // -- prefill.cc
  void reserve_prefill();
  GemmTask many_rows(const DeviceLinear& linear, const void* x, std::int64_t rows) const;
  void forward_many(std::span<const RowRef> rows, const float* embeds);
  void enqueue_norm(const float* weight, std::int64_t rows);
  void enqueue_prefill_layer(std::size_t layer, std::span<const RowRef> places);
  void enqueue_prefill_qkv(std::size_t layer, std::int64_t rows);
  void enqueue_prefill_attention(std::size_t layer, std::span<const RowRef> rows);
  void call_prefill_attention(std::size_t layer, std::span<const RowRef> rows);

  // -- token.cc
  void embed_times();
  void enqueue_condition();
  void enqueue_modulations();
  FmHeadTask fm_task() const;
  FmLaunch fm_launch() const;
  void enqueue_fm_head(const FmHeadTask& task);
  void run_fm_head(std::int64_t begin, std::int64_t end, bool finishes);
  void enqueue_token(bool advances);
  void place_token(const TokenArgs& args);

  Inputs& inputs() { return *reinterpret_cast<Inputs*>(host_inputs_.data()); }
  const Inputs* device_inputs() const { return reinterpret_cast<const Inputs*>(device_inputs_.data()); }
  std::size_t noise_bytes() const { return noise_count_ * sizeof(float); }

  const ModelWeights& host_weights_;
  const ModelConfig& config_;
  const DType compute_;
  const int device_;
  const DeviceTraits traits_;
  const Stream stream_;
  const DeviceWeights weights_;
  const std::int64_t chunk_;  // rows of a forward pass through the linear kernels
  const PrefillChoice prefill_;

  PrefillAttentionFn prefill_attention_;  // empty: the kernel

  StateShape shape_;
  DecodePlan plan_;
  std::int64_t token_ = 0;  // the last one conditioned
  std::int32_t prefill_splits_ = 1, decode_splits_ = 1;
  std::size_t noise_count_ = 0;
  std::uint32_t fm_launches_ = 0;  // since the exchanges' words were cleared
  bool after_kernel_ = false;

  // "Numbers" are of the compute dtype.
  DeviceBuffer<float> residual_, squares_;               // [prefill_.most_rows, d_model], [chunk, parts]
  DeviceBuffer<std::byte> x_, q_, attended_, inner_;     // [prefill_.most_rows, ...], numbers
  DeviceBuffer<std::byte> products_;                     // of prefill: q, k and v, then gate and up
  DeviceBuffer<RowPlace> prefill_places_;                // as those of Inputs,
  DeviceBuffer<std::int32_t> prefill_keep_;              // for more rows
  DeviceBuffer<float> rope_cos_, rope_sin_;              // [position, d_head / 2]
  DeviceBuffer<std::byte> k_cache_, v_cache_;            // [layer, sequence, kv head, position, d_head], numbers
  DeviceBuffer<float> hidden_;                           // [kMaxRows, d_model]
  DeviceBuffer<std::byte> condition_input_, condition_;  // as hidden_, numbers

  DeviceBuffer<float> times_;                  // [times, d_fm]
  DeviceBuffer<std::byte> modulation_inputs_;  // [times, rows, d_fm], numbers
  DeviceBuffer<std::byte> modulations_;        // [times, rows, (3 layers + 2) d_fm], numbers
  DeviceBuffer<FmStep> steps_;
  DeviceBuffer<float> velocity_, latent_, tokens_;  // [kMaxRows, d_tok]
  DeviceBuffer<float> carry_;                       // [3, kMaxRows, d_tok]
  DeviceBuffer<std::uint64_t> fm_words_;

  DeviceBuffer<float> linear_partials_, attn_partials_;
  DeviceBuffer<std::uint32_t> linear_tickets_, attn_tickets_;
  DeviceBuffer<std::byte> device_inputs_;  // Inputs, then noise
  PinnedMemory host_inputs_, host_tokens_;
  PinnedMemory host_prefill_;  // places, then keep

  Graph first_token_, next_token_;
};

}  // namespace nsrt::cuda
