// The one interface between the engine and what computes: stages of the model, not mathematical primitives. A backend
// owns its state (KV cache, hidden states, the token being sampled) wherever it likes; everything that crosses this
// interface is small host memory. Only reserve() and set_plan() allocate.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/solver.h"
#include "core/stage_clock.h"
#include "core/weights.h"
#include "nextstep_rt/engine.h"

namespace nsrt {

// Room for a request: `rows` sequences of at most `positions`, `steps` network evaluations times a token.
struct StateShape {
  std::int64_t rows = 0, positions = 0, steps = 0;
};

// Where one row of a forward pass stands.
struct RowRef {
  std::int64_t sequence = 0;
  std::int64_t position = 0;
  bool last = false;  // its hidden state is kept as the sequence's
};

// One image token to make.
struct TokenArgs {
  std::int64_t token = 0;        // index in the image
  std::span<const RowRef> rows;  // where the previous token goes, one a sequence; unused for token 0
  float guidance = 1, image_guidance = 1;
  const float* noise = nullptr;  // [1 + steps, images, d_tok]
  float* out = nullptr;          // [images, d_tok]
  // What the calling thread can do while the token is made, called once at most, when `noise` has been read. A backend
  // that computes with the calling thread has no use for it.
  std::function<void()> meanwhile = {};
};

// What stays the same for all tokens of a request.
struct DecodePlan {
  SolverPlan solver;
  std::int64_t branches = 1, images = 0;
  bool renorm = false, normalize = true;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;
  virtual int threads() const = 0;

  // Rows of one forward pass of prefill at most.
  virtual std::int64_t max_chunk() const = 0;
  // Bytes that a request of this shape needs in all; no allocation.
  virtual MemoryUse plan(const StateShape& shape) const = 0;
  // Bytes held now.
  virtual MemoryUse memory() const = 0;
  // Bytes that can still be had of the memory where state lies; 0 where it cannot be told.
  virtual std::uint64_t available() const = 0;
  virtual void reserve(const StateShape& shape) = 0;
  virtual void set_plan(const DecodePlan& plan) = 0;

  virtual void project_tokens(const float* tokens, std::int64_t n, float* out) = 0;

  // One pass of the backbone over rows of embeddings [rows.size(), d_model]; keys and values join the cache.
  virtual void forward(std::span<const RowRef> rows, const float* embeds) = 0;

  // Whether forward() can have its attention computed by a function of the engine's caller, and which.
  virtual bool takes_prefill_attention() const { return false; }
  virtual void set_prefill_attention(PrefillAttentionFn) {}

  // The stages of one token, in this order.
  virtual void advance(std::span<const RowRef> rows) = 0;            // the last token through image_in and the backbone
  virtual void condition(std::int64_t token) = 0;                    // hidden states -> conditions of the FM head
  virtual void modulate() = 0;                                       // all steps' adaLN modulations
  virtual void start(const float* noise) = 0;                        // x <- noise
  virtual void step(std::int64_t index, const TokenArgs& args) = 0;  // velocity, guidance, solver update
  virtual void finish(float* out) = 0;                               // token-wise normalization

  // A whole token. This composition is the definition; a backend may fuse it and is tested against it.
  virtual void decode_token(const TokenArgs& args);
  void compose_token(const TokenArgs& args);

  virtual std::vector<float> state(StateBuffer which) const = 0;

  // The clock of decode_token's stages; null where there is none.
  virtual StageClock* clock() { return nullptr; }

 protected:
  std::int64_t num_steps_ = 0;  // solver steps of the plan in force
};

// The backend of a device name ("cpu", "cuda", "cuda:<index>", "auto"). `weights` outlives it. Throws InvalidRequest on
// an unknown device or a bad thread count, Error where the device is not there.
std::unique_ptr<Backend> make_backend(const ModelWeights& weights, const std::string& device, DType compute,
                                      int threads);

std::unique_ptr<Backend> make_cpu_backend(const ModelWeights& weights, DType compute, int threads);

// Throws Error where the library was built without CUDA or no device is there.
std::unique_ptr<Backend> make_cuda_backend(const ModelWeights& weights, DType compute, int device);
bool built_with_cuda();
// What does the products of long prompts in bfloat16, by device: "cutlass sm_90a", "cutlass sm_80" or "linear kernels
// in chunks of 64". As cuda_devices(): one a GPU.
std::vector<std::string> cuda_prefill_products();
// The GPUs by index, described: name, architecture, memory. None in a build without CUDA or without a driver.
std::vector<std::string> cuda_devices();

}  // namespace nsrt
