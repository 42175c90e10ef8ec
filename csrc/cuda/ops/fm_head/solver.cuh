// Guidance and the solver's update, for all images in every block: a warp for each image. x is float32 throughout.
#pragma once

#include "cuda/device/reduce.cuh"
#include "cuda/ops/fm_head/norm.cuh"
#include "cuda/ops/fm_head/product.cuh"

namespace nsrt::cuda {

// What a lane adds to the first numbers that it updates, of the warp's first image: loaded before velocities are known.
struct FmDraw {
  float first = 0, second = 0;
};

struct FmSolver {
  const FmHeadTask& t;
  float* velocity;             // [branches * images, d_tok]
  float *x, *kept_x, *kept_v;  // [images, d_tok]
  float guidance = 1, image_guidance = 1;

  __device__ const float* noise(int draw) const {
    return reinterpret_cast<const float*>(t.inputs + 1) + static_cast<std::int64_t>(draw) * t.images * t.d_tok;
  }

  __device__ FmDraw draw(const FmStep& s) const {
    const auto at = [&](int c) {
      const bool mine = s.draw >= 0 && warp_index() < t.images && c < t.d_tok;
      return mine ? noise(s.draw)[warp_index() * t.d_tok + c] : 0.0f;
    };
    return {at(lane_index()), at(lane_index() + 32)};
  }

  __device__ void start() {
    guidance = t.inputs->guidance;
    image_guidance = t.inputs->image_guidance;
    const int count = t.images * t.d_tok;
    for (int i = thread_index(); i < count; i += kFmThreads) {
      x[i] = t.carry ? t.carry[i] : noise(0)[i];
      if (t.carry) kept_x[i] = t.carry[count + i], kept_v[i] = t.carry[2 * count + i];
    }
    __syncthreads();
    if (t.carry) ptx::fence_acq_rel();  // with the one in save(): words received say that the carry was read
  }

  // For the next launch. Every block has read the carry once this one has received what all send in an evaluation.
  __device__ void save() const {
    if (!t.carry) return;
    ptx::fence_acq_rel();
    __syncthreads();
    const int count = t.images * t.d_tok;
    for (int i = thread_index(); i < count; i += kFmThreads) {
      t.carry[i] = x[i];
      t.carry[count + i] = kept_x[i];
      t.carry[2 * count + i] = kept_v[i];
    }
  }

  // docs/model.md, "Guidance". Rows are branch-major: condition, (image only,) none.
  __device__ float guided(int image, int c) const {
    const auto branch = [&](int b) { return velocity[(b * t.images + image) * t.d_tok + c]; };
    const float condition = branch(0);
    if (t.branches == 1) return condition;
    const float none = branch(t.branches - 1);
    if (t.branches == 2) return none + guidance * (condition - none);
    const float image_only = branch(1);
    return none + image_guidance * (image_only - none) + guidance * (condition - image_only);
  }

  // Renorm: never longer than the conditional velocity.
  __device__ float shrinking(int image) const {
    if (!t.renorm) return 1.0f;
    float condition = 0.0f, mixed = 0.0f;
    for (int c = lane_index(); c < t.d_tok; c += 32) {
      const float v = velocity[image * t.d_tok + c], g = guided(image, c);
      condition += v * v;
      mixed += g * g;
    }
    return fminf(1.0f, sqrtf(warp_sum(condition)) / (sqrtf(warp_sum(mixed)) + 1e-6f));
  }

  __device__ void step(const FmStep& s, const FmDraw& drawn) {
    for (int image = warp_index(); image < t.images; image += kFmWarps) {
      const float factor = shrinking(image);
      for (int c = lane_index(); c < t.d_tok; c += 32) {
        const int i = image * t.d_tok + c;
        const bool held = image < kFmWarps && c < 64;
        const float added = held ? (c < 32 ? drawn.first : drawn.second) : s.draw >= 0 ? noise(s.draw)[i] : 0.0f;
        update(s, i, guided(image, c) * factor, added);
      }
    }
  }

  __device__ void update(const FmStep& s, int i, float v, float drawn) {
    switch (static_cast<SolverStep::Kind>(s.kind)) {
      case SolverStep::Kind::kUpdate:
        x[i] = s.cx * x[i] + s.cv * v + (s.draw >= 0 ? s.ce * drawn : 0.0f);
        break;
      case SolverStep::Kind::kHeunPredict:
        kept_x[i] = x[i];
        kept_v[i] = v;
        x[i] += s.cv * v;
        break;
      case SolverStep::Kind::kHeunCorrect:
        x[i] = kept_x[i] + s.cv * (kept_v[i] + v);
        break;
    }
  }

  // The last velocities, and x before normalization, for whoever compares stages.
  __device__ void report_velocity() const {
    for (int i = thread_index(); i < t.branches * t.images * t.d_tok; i += kFmThreads)
      if (t.velocity) t.velocity[i] = velocity[i];
  }

  __device__ void report_latent() const {
    for (int i = thread_index(); i < t.images * t.d_tok; i += kFmThreads)
      if (t.latent) t.latent[i] = x[i];
  }

  // Token-wise normalization, in place; a lane's numbers of an image are read by no other before the next barrier.
  __device__ void normalize() {
    if (!t.normalize) return;
    __syncthreads();  // report_latent() reads other images
    for (int image = warp_index(); image < t.images; image += kFmWarps) {
      float* row = x + image * t.d_tok;
      float sum = 0.0f, squares = 0.0f;
      for (int c = lane_index(); c < t.d_tok; c += 32) sum += row[c];
      const float mean = warp_sum(sum) / static_cast<float>(t.d_tok);
      for (int c = lane_index(); c < t.d_tok; c += 32) squares += (row[c] - mean) * (row[c] - mean);
      const float inverse = rsqrtf(warp_sum(squares) / static_cast<float>(t.d_tok) + kFmNormEps);
      for (int c = lane_index(); c < t.d_tok; c += 32) row[c] = (row[c] - mean) * inverse;
    }
  }

  __device__ void write_tokens() const {
    for (int i = thread_index(); i < t.images * t.d_tok; i += kFmThreads) t.tokens[i] = x[i];
  }
};

}  // namespace nsrt::cuda
