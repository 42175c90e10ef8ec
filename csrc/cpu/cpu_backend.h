// The CPU backend: every stage is run by the whole team over shared buffers; products are split by output columns,
// attention by (row, kv head, block of positions). What a thread count changes is who computes a number, never how.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/memory.h"
#include "core/stage_clock.h"
#include "cpu/isa.h"
#include "cpu/ops.h"
#include "cpu/pool.h"

namespace nsrt::cpu {

// Rows of one pass of prefill: enough to make a product bound by arithmetic, few enough to stay in L2.
inline constexpr std::int64_t kChunkRows = 64;

// The input of a product, in the format the kernels want (bf16 or float32).
struct Operand {
  const void* data = nullptr;
  std::int64_t stride = 0;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(const ModelWeights& weights, DType compute, int threads);

  std::string name() const override { return std::string("cpu/") + kernels_.name; }
  int threads() const override { return pool_.size(); }
  std::int64_t max_chunk() const override { return kChunkRows; }
  MemoryUse plan(const StateShape& shape) const override;
  MemoryUse memory() const override;
  std::uint64_t available() const override { return available_memory(); }
  void reserve(const StateShape& shape) override;
  void set_plan(const DecodePlan& plan) override;

  void project_tokens(const float* tokens, std::int64_t n, float* out) override;
  void forward(std::span<const RowRef> rows, const float* embeds) override;
  void advance(std::span<const RowRef> rows) override;
  void condition(std::int64_t token) override;
  void modulate() override;
  void start(const float* noise) override;
  void step(std::int64_t index, const TokenArgs& args) override;
  void finish(float* out) override;
  // All stages in one run of the team.
  void decode_token(const TokenArgs& args) override;
  std::vector<float> state(StateBuffer which) const override;
  StageClock* clock() override { return &clock_; }

 private:
  // What one member of the team needs for itself.
  struct Scratch {
    Buffer<float> row;                     // one row of the widest kind
    Buffer<std::byte> input;               // kChunkRows rows in input format
    Buffer<std::uint16_t> packed;          // the input of a product as tiles, where the kernels pack
    Buffer<float> scores;                  // kMostHeads * kAttentionBlock
    Buffer<float> x;                       // the token being sampled [images, d_tok]: each member keeps its own copy
    Buffer<float> kept_x, kept_v, guided;  // [images, d_tok]
  };

  // A stage of the token ends here, after its barrier.
  void mark(const Team& team, Stage stage) {
    if (team.id() == 0) clock_.mark(stage, team.barriers());
  }

  Scratch& scratch(const Team& team) { return scratch_[static_cast<std::size_t>(team.id())]; }

  // -- products (linear.cc)
  std::size_t input_size() const { return item_size(input_dtype_); }
  void* input_row(Buffer<std::byte>& buffer, std::int64_t row, std::int64_t width) const;
  // Writes n float32 numbers in input format.
  void to_input(const float* x, std::int64_t n, void* out) const;
  // rows rows of x [stride] in input format, in this member's scratch.
  Operand prepare(Team& team, const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n);
  Operand normed(Team& team, const float* weight, std::int64_t rows);
  // y[r, n] = x[r] . w[n] for this member's columns, which it returns.
  Team::Range product(Team& team, const Linear& linear, Operand x, std::int64_t rows, float* y, std::int64_t stride);
  // product + bias (+ residual) (+ SiLU), y float32.
  void linear(Team& team, const Linear& linear, Operand x, std::int64_t rows, float* y, std::int64_t stride,
              const float* residual = nullptr, bool silu = false);
  // The same, y in input format in a shared buffer of the output's width; `tmp` is float32 of that shape.
  void linear_silu_to_input(Team& team, const Linear& linear, Operand x, std::int64_t rows, float* tmp,
                            Buffer<std::byte>& y);

  // -- backbone (backbone.cc); stages end with a barrier
  void run_backbone(Team& team, std::span<const RowRef> rows);
  void qkv(Team& team, const LayerWeights& w, std::int64_t rows);
  void rope_and_append(Team& team, std::int64_t layer, std::span<const RowRef> rows);
  void attention(Team& team, std::int64_t layer, std::span<const RowRef> rows);
  void attention_item(Team& team, std::int64_t layer, const RowRef& row, std::int64_t index, std::int64_t block,
                      std::int64_t head);
  void combine_attention(Team& team, std::span<const RowRef> rows);
  void feed_forward(Team& team, const LayerWeights& w, std::int64_t rows);
  std::size_t kv_offset(std::int64_t layer, std::int64_t sequence, std::int64_t head, std::int64_t position) const;
  void advance_in_team(Team& team, std::span<const RowRef> rows);
  void project_in_team(Team& team, const float* tokens, std::int64_t n, float* out);

  // -- FM head (fm_head.cc)
  void embed_times(Team& team);
  void condition_in_team(Team& team, std::int64_t token);
  void modulate_in_team(Team& team);
  void start_in_team(Team& team, const float* noise);
  void step_in_team(Team& team, const SolverStep& step, const TokenArgs& args);
  void velocity(Team& team, std::int64_t time);
  void guide(Team& team, const TokenArgs& args);
  void finish_in_team(Team& team, float* out);
  Operand modulated(Team& team, const FmBlockWeights* block, const float* modulation);
  const float* modulation(std::int64_t time, std::int64_t row) const;

  std::uint64_t fixed_bytes() const;  // of what the constructor reserves
  // Of a member's packed input, `modulations` being the rows of their product.
  std::int64_t packed_numbers(std::int64_t modulations) const;
  std::int64_t fm_rows() const { return plan_.branches * plan_.images; }

  const ModelWeights& weights_;
  const ModelConfig& config_;
  const KernelTable& kernels_;
  const DType kv_dtype_;
  const DType input_dtype_;  // of the products
  Pool pool_;
  std::vector<Scratch> scratch_;

  // Shape of the state in force.
  StateShape shape_;
  DecodePlan plan_;
  std::int64_t token_ = 0;  // the last one conditioned
  StageClock clock_;

  // Backbone: kChunkRows rows each.
  Buffer<float> x_, q_, k_, v_, gate_, up_, tmp_;
  Buffer<std::byte> attn_, ff_;                            // input format
  Buffer<float> partial_out_, partial_max_, partial_sum_;  // [row, block, q head (, d_head)]
  Buffer<float> rope_cos_, rope_sin_;                      // [position, d_head / 2]
  std::int64_t rope_positions_ = 0;
  Buffer<std::byte> k_cache_, v_cache_;  // [layer, sequence, kv head, position, d_head]
  Buffer<float> hidden_, cond_;          // [rows, d_model]

  // FM head.
  const std::int64_t modulation_width_;  // (3 layers + 2) d_fm
  Buffer<float> time_embeds_;            // [steps, d_fm]
  Buffer<float> cond_embeds_;            // [rows, d_fm]
  Buffer<std::byte> modulation_input_;   // [steps * rows, d_fm]
  Buffer<float> modulations_;            // [steps * rows, modulation_width_]
  Buffer<float> fm_h_, fm_tmp_;          // [rows, d_fm], [rows, max(d_fm, fm_mlp)]
  Buffer<std::byte> fm_ff_;              // [rows, fm_mlp]
  Buffer<float> velocity_;               // [rows, d_tok]
  Buffer<float> latent_, tokens_;        // [rows, d_tok]: before and after the token-wise normalization
};

}  // namespace nsrt::cpu
