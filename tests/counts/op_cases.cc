// Ops on arrays. Shapes are those of a small model, large enough that the inner loops are most of the instructions.
#include <cmath>
#include <deque>

#include "cases.h"
#include "core/bf16.h"
#include "core/check.h"
#include "core/cost.h"
#include "core/memory.h"
#include "cpu/isa.h"
#include "cpu/ops.h"
#include "nextstep_rt/engine.h"
#include "random_model.h"

namespace nsrt::counts {
namespace {

class OpCases final : public Cases {
 public:
  std::vector<Case> all() override {
    add_products();
    add_attentions();
    add_norms();
    add_elementwise();
    return cases_;
  }

 private:
  // Aligned to cache lines: an allocator's own alignment could change which way memcpy takes.
  float* floats(std::int64_t n, float scale = 1.0f) {
    const std::vector<float> values = test::random_floats(static_cast<std::size_t>(n), ++seed_, scale);
    Buffer<float>& array = floats_.emplace_back();
    array.reserve(values.size());
    std::copy(values.begin(), values.end(), array.data());
    return array.data();
  }

  const void* numbers(std::int64_t n, DType dtype, float scale) {
    const float* wide = floats(n, scale);
    if (dtype == DType::kFloat32) return wide;
    Buffer<std::uint16_t>& array = halves_.emplace_back();
    array.reserve(static_cast<std::size_t>(n));
    std::transform(wide, wide + n, array.data(), float_to_bf16);
    return array.data();
  }

  template <class Params, class Run>
  void add(const std::string& name, const Params& p, Run run) {
    cases_.push_back({name, cost(p).bytes, [p, run] { run(p); }});
  }

  void add_product(DType dtype, std::int64_t rows) {
    constexpr std::int64_t kOutputs = 256, kInputs = 512;
    LinearParams p{.w = {numbers(kOutputs * kInputs, dtype, 0.05f), dtype, kOutputs, kInputs},
                   .bias = floats(kOutputs),
                   .x = floats(rows * kInputs),
                   .residual = nullptr,
                   .y = floats(rows * kOutputs),
                   .b = rows,
                   .silu = true,
                   .round_x = true};
    add(str("linear ", name_of(dtype), " 256x512, ", rows, rows == 1 ? " row" : " rows"), p,
        [this](const LinearParams& q) { cpu::linear(kernels_, q, pool_); });
  }

  void add_products() {
    for (const DType dtype : {DType::kBFloat16, DType::kFloat32})
      for (const std::int64_t rows : {1, 2, 8, 16}) add_product(dtype, rows);
  }

  void add_attentions() {
    constexpr std::int64_t kRows = 2, kHeads = 8, kKvHeads = 2, kDim = 64, kPositions = 320;
    for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
      AttentionParams p{.q = floats(kRows * kHeads * kDim),
                        .k = numbers(kRows * kKvHeads * kPositions * kDim, dtype, 1.0f),
                        .v = numbers(kRows * kKvHeads * kPositions * kDim, dtype, 1.0f),
                        .kv_dtype = dtype,
                        .lengths = lengths_,
                        .y = floats(kRows * kHeads * kDim),
                        .b = kRows,
                        .h_q = kHeads,
                        .h_kv = kKvHeads,
                        .d_head = kDim,
                        .capacity = kPositions};
      add(str("attention ", name_of(dtype), ", 300 and 77 positions"), p,
          [this](const AttentionParams& q) { cpu::attention(kernels_, q, pool_); });
    }
  }

  void add_norms() {
    constexpr std::int64_t kRows = 2, kDim = 1024;
    const RmsNormParams rms{.x = floats(kRows * kDim),
                            .weight = floats(kDim),
                            .y = floats(kRows * kDim),
                            .b = kRows,
                            .d = kDim,
                            .eps = 1e-6f};
    add("rms_norm, 2 rows of 1024", rms, [this](const RmsNormParams& p) { cpu::rms_norm(kernels_, p); });
    const LayerNormParams modulated{.x = floats(kRows * kDim),
                                    .weight = floats(kDim),
                                    .bias = floats(kDim),
                                    .shift = floats(kRows * kDim),
                                    .scale = floats(kRows * kDim),
                                    .y = floats(kRows * kDim),
                                    .b = kRows,
                                    .d = kDim,
                                    .eps = 1e-6f};
    const auto layer_norm = [this](const LayerNormParams& p) { cpu::layer_norm(kernels_, p); };
    add("layer_norm with modulation, 2 rows of 1024", modulated, layer_norm);
    const LayerNormParams token{.x = floats(16 * 64), .y = floats(16 * 64), .b = 16, .d = 64, .eps = 1e-6f};
    add("token_norm, 16 rows of 64", token, layer_norm);
  }

  void add_elementwise() {
    constexpr std::int64_t kInner = 2816, kTokenDim = 64, kImages = 4;
    const RopeParams rope{floats(2 * 16 * 64), lengths_, floats(2 * 16 * 64), 2, 16, 64, 1e6};
    add("rope, 2 rows of 16x64", rope, [this](const RopeParams& p) { cpu::rope(kernels_, p); });
    const SiluMulParams silu{floats(kInner), floats(kInner), floats(kInner), kInner};
    add("silu_mul, 2816", silu, [this](const SiluMulParams& p) { cpu::silu_mul(kernels_, p); });
    for (const std::int64_t branches : {2, 3}) {
      GuidanceParams p{.v = floats(branches * kImages * kTokenDim),
                       .y = floats(kImages * kTokenDim),
                       .branches = branches,
                       .images = kImages,
                       .d_tok = kTokenDim,
                       .guidance = 3.0f,
                       .image_guidance = 2.0f};
      const auto run = [this](const GuidanceParams& q) { cpu::guidance(kernels_, q); };
      add(str("guidance, ", branches, " branches of 4x64"), p, run);
      p.renorm = true;
      add(str("guidance with renorm, ", branches, " branches of 4x64"), p, run);
    }
    // cx + cv + ce below 1: however often it runs, x stays a finite, normal number.
    const SolverUpdateParams update{floats(1024), floats(1024), floats(1024), 1024, 0.5f, 0.25f, 0.125f};
    add("solver_update, 1024", update, [this](const SolverUpdateParams& p) { cpu::solver_update(kernels_, p); });
    float* noise = floats(256);
    cases_.push_back({"normal_noise, 256", std::nullopt, [noise] { normal_noise(1, 2, 3, 256, noise); }});
  }

  const cpu::KernelTable& kernels_ = cpu::kernels();
  cpu::Pool pool_{1};
  const std::int64_t lengths_[2] = {300, 77};  // positions too, of rope
  std::deque<Buffer<float>> floats_;
  std::deque<Buffer<std::uint16_t>> halves_;
  unsigned seed_ = 0;
  std::vector<Case> cases_;
};

}  // namespace

std::unique_ptr<Cases> make_op_cases() { return std::make_unique<OpCases>(); }

}  // namespace nsrt::counts
