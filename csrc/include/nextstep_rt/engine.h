// The decode loop: prefill rows of embeddings, then generate image tokens one after another.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nextstep_rt/config.h"
#include "nextstep_rt/request.h"
#include "nextstep_rt/tensor.h"

namespace nsrt {

// Rows (images x guidance branches) one engine carries at once.
inline constexpr std::int64_t kMaxRows = 16;

struct EngineOptions {
  std::string device = "cpu";        // "cpu", "cuda", "cuda:1", "auto"
  DType compute = DType::kBFloat16;  // kFloat32: float32 products; kBFloat16: bf16 products and KV cache
  int threads = 0;                   // 0: all cores this process may use
};

// Bytes, of the engine's own allocations and of the weights it reads.
struct MemoryUse {
  std::uint64_t weights = 0;    // all parameters, wherever they live
  std::uint64_t converted = 0;  // the part of them copied into another dtype
  std::uint64_t kv_cache = 0;
  std::uint64_t scratch = 0;
};

// Called after each token and between chunks of prefill. Return false to stop after this token. Throwing stops too and
// reaches the caller of the engine.
using ProgressFn = std::function<bool(std::int64_t done, std::int64_t total)>;

// Attention that prefill asks of somebody else: consecutive rows of one sequence in one layer, which end at the
// sequence's last position so far. Row i sees positions 0 to positions - rows + i, all of them in the cache. Query head
// h reads kv head h / (h_q / h_kv). Addresses are of the device and valid during the call and for the work it enqueues.
struct PrefillAttention {
  const void* q = nullptr;  // [rows, h_q, d_head], rotated and scaled by 1 / sqrt(d_head)
  const void* k = nullptr;  // [h_kv, capacity, d_head], of which the first `positions` of each head are written
  const void* v = nullptr;  // as k
  void* out = nullptr;      // as q
  std::int64_t rows = 0, positions = 0, capacity = 0;
  std::int64_t h_q = 0, h_kv = 0, d_head = 0;
  DType dtype = DType::kBFloat16;  // of all four
  int device = 0;                  // the index of the CUDA device, which is the calling thread's
  void* stream = nullptr;  // a cudaStream_t: what makes q, k and v is enqueued there, and what reads `out` will be
};
// Enqueues the attention on the stream; need not wait for it. What it throws reaches the caller of prefill().
using PrefillAttentionFn = std::function<void(const PrefillAttention&)>;

// A stage of the decode loop; sums over the tokens since profiling began.
struct StageProfile {
  std::string name;
  double seconds = 0;
  std::int64_t barriers = 0;  // at which the team's threads met
};

// One intermediate buffer of the last token, for tests that compare stage by stage.
enum class StateBuffer { kHidden, kCond, kModulation, kVelocity, kLatent };

// Not shared between threads: a call while another runs throws Error. rows() and position() may be read at any time.
class Engine {
 public:
  // `tensors` (and what `keep_alive` owns) must outlive the engine's use of them: keep_alive is held for that.
  // Throws CheckpointError on missing, unknown or misshapen tensors; Error on a device that is not there.
  Engine(const ModelConfig& config, const TensorMap& tensors, const EngineOptions& options,
         std::shared_ptr<const void> keep_alive = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  const ModelConfig& config() const;
  DType compute() const;
  int threads() const;
  // backend/variant, e.g. "cpu/avx512_bf16".
  std::string backend() const;

  // Token ids [n] -> embeddings [n, hidden_size].
  std::vector<float> embed_tokens(std::span<const std::int64_t> ids) const;
  // Image tokens [n, token_dim] -> embeddings [n, hidden_size] (image_in_projector).
  std::vector<float> project_tokens(std::span<const float> tokens) const;

  // What a request would allocate, before it does: `positions` counts a row's prompt and image tokens.
  MemoryUse plan(std::int64_t rows, std::int64_t positions, std::int64_t steps) const;
  MemoryUse memory() const;

  // Whether prefill can have its attention computed by a function of the caller's: where many rows of a prompt go at
  // once, which is on a CUDA device, in bfloat16, with a library for the products.
  bool takes_prefill_attention() const;
  // From now on prefill of many rows calls `attention`, once a layer for each sequence of a pass; an empty function
  // returns to the engine's own kernel. Few rows and decode() always take the kernel. Throws InvalidRequest where
  // takes_prefill_attention() is false, unless the function is empty.
  void set_prefill_attention(PrefillAttentionFn attention);

  // Starts afresh with `rows` sequences. embeds [rows, width, hidden_size]; mask [rows, width] is zero where a
  // column is padding (anywhere: rows are kept ragged, pads dropped); empty means no padding.
  // Room is made for max_new_tokens image tokens a row. Throws InvalidRequest, Error when memory does not suffice,
  // Cancelled when `progress` returns false. After any exception the engine is as after reset().
  void prefill(std::span<const float> embeds, std::span<const std::uint8_t> mask, std::int64_t rows, std::int64_t width,
               std::int64_t max_new_tokens, const ProgressFn& progress = {});

  // Generates up to `count` more tokens of each image and writes them to out [images, count, token_dim],
  // images = rows / params.branches. Noise is either `noise` [count, 1 + steps, images, token_dim], or, when that is
  // empty, drawn from `seeds` [images] by normal_noise(). Returns the number of tokens made: fewer than count only when
  // `progress` stopped it. Between calls of one image all but branches and num_tokens may change. Tokens made before an
  // exception of `progress` are in `out`. Throws InvalidRequest; Error at the token where values stop being finite,
  // after which the rows are forgotten.
  std::int64_t decode(const SamplingParams& params, std::int64_t count, std::span<const float> noise,
                      std::span<const std::uint64_t> seeds, std::span<float> out, const ProgressFn& progress = {});

  // Forgets the sequences; memory is kept for the next request.
  void reset();
  std::int64_t rows() const;
  // Images that the prefilled rows are in `branches` guidance branches. Throws InvalidRequest when they are none.
  std::int64_t images(std::int64_t branches) const;
  // Image tokens generated since prefill.
  std::int64_t position() const;

  // A copy of an intermediate of the last token:
  // kHidden (with gen_pos_embed where the model uses it), kCond [rows, hidden_size]; kModulation [steps * rows,
  // (3*layers + 2) * fm_head_dim]; kVelocity [rows, token_dim] of the last evaluation; kLatent [images, token_dim]
  // before normalization.
  std::vector<float> state(StateBuffer which) const;

  // From now on decode() sums up the time of its stages, from zero; or no more. No number of a token changes. Both
  // throw InvalidRequest on a CUDA device, where a token is one launch.
  void profile(bool on);
  std::vector<StageProfile> stages() const;

 private:
  struct Impl;
  Impl& impl() const;
  std::unique_ptr<Impl> impl_;
};

// Standard normals of one image: `n` numbers for draw `draw` of token `token` (draw 0 starts the token, draw 1 + k
// drives solver step k). A pure function of its arguments: Philox-4x32-10 keyed by `seed`, then Box-Muller.
void normal_noise(std::uint64_t seed, std::int64_t token, std::int64_t draw, std::int64_t n, float* out);

// Bytes the machine can still give this process (free memory and cgroup limits); 0 where it cannot be told.
std::uint64_t available_memory();

}  // namespace nsrt
