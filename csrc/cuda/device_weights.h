// The model's weights on the GPU, in one allocation: matrices in one dtype, vectors in float32. The embedding table
// stays on the host, which looks prompts up before they are uploaded.
#pragma once

#include <cstdint>
#include <vector>

#include "core/weights.h"
#include "cuda/ops/fm_head/fm_head.h"
#include "cuda/runtime.h"

namespace nsrt::cuda {

// [n, k]; bias is null where the model has none.
struct DeviceLinear {
  const void* w = nullptr;
  const float* bias = nullptr;
  std::int32_t n = 0, k = 0;
};

struct DeviceLayer {
  const float* input_norm = nullptr;
  DeviceLinear q, k, v, o;
  const float* post_attention_norm = nullptr;
  DeviceLinear gate, up, down;

  // The matrices of q, k and v, and those of gate and up, lie one directly below the other. Without their biases.
  DeviceLinear qkv() const { return {.w = q.w, .n = q.n + k.n + v.n, .k = q.k}; }
  DeviceLinear gate_up() const { return {.w = gate.w, .n = gate.n + up.n, .k = gate.k}; }
};

struct DeviceFmHead {
  DeviceLinear time1, time2, cond, input, output;
  DeviceLinear modulation;  // of all blocks and the last layer, one below the other: [(3 layers + 2) d_fm, d_fm]
  std::vector<FmBlock> blocks;
  const FmBlock* device_blocks = nullptr;
};

class DeviceWeights {
 public:
  // Uploads through `stream` and waits. Throws Error where the GPU has no room.
  DeviceWeights(const ModelWeights& weights, const Stream& stream);

  // bfloat16 where all matrices are; else float32, to which bfloat16 widens exactly.
  DType dtype() const { return dtype_; }
  std::uint64_t nbytes() const { return memory_.bytes(); }

  const std::vector<DeviceLayer>& layers() const { return layers_; }
  const float* norm() const { return norm_; }
  const DeviceLinear& image_in() const { return image_in_; }
  const DeviceLinear& image_out() const { return image_out_; }
  const float* gen_pos_embed() const { return gen_pos_embed_; }  // [tokens, hidden_size], or null
  const DeviceFmHead& fm() const { return fm_; }

 private:
  class Plan;

  void place_backbone(const ModelWeights& weights, Plan& plan);
  void place_fm_head(const ModelWeights& weights, Plan& plan);

  DType dtype_;
  DeviceMemory memory_;
  std::vector<DeviceLayer> layers_;
  const float* norm_ = nullptr;
  DeviceLinear image_in_, image_out_;
  const float* gen_pos_embed_ = nullptr;
  DeviceFmHead fm_;
};

}  // namespace nsrt::cuda
