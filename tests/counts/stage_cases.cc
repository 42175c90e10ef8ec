// The stages of the CPU backend, on a small random model: one guided image after a prompt of some positions.
#include "backend/backend.h"
#include "cases.h"
#include "core/check.h"
#include "core/cost.h"
#include "core/weights.h"
#include "random_model.h"

namespace nsrt::counts {
namespace {

constexpr std::int64_t kRows = 2, kImages = 1, kSteps = 4, kPrompt = 40, kTokens = 4;
constexpr std::int64_t kToken = 1;  // the first that has a backbone step

ModelConfig config() {
  ModelConfig c = test::small_config();  // but of widths that fill vectors, as a real model's do
  c.hidden_size = 256;
  c.intermediate_size = 704;
  c.num_attention_heads = 4;
  c.head_dim = 64;
  c.latent_channels = 16;
  c.fm_head_dim = 192;
  c.fm_head_mlp_ratio = 1.0;
  return c;
}

class StageCases final : public Cases {
 public:
  explicit StageCases(DType dtype)
      : dtype_(dtype),
        model_(config(), dtype, 1),
        weights_(bind_weights(model_.config(), model_.tensors(), dtype)),
        backend_(make_cpu_backend(weights_, dtype, 1)),
        embeds_(test::random_floats(count(kPrompt * config().hidden_size), 2)),
        noise_(test::random_floats(count((1 + kSteps) * kImages * config().token_dim()), 3)),
        out_(count(kImages * config().token_dim())) {
    backend_->reserve({kRows, kPrompt + kTokens, 0});
    SamplingParams params;
    params.num_tokens = kTokens;
    params.num_inference_steps = kSteps;
    params.branches = kRows / kImages;
    backend_->set_plan({make_solver_plan(params), params.branches, kImages, false, true});
    for (std::int64_t row = 0; row < kRows; ++row) {
      prompt_.clear();
      for (std::int64_t i = 0; i < kPrompt; ++i) prompt_.push_back({row, i, i + 1 == kPrompt});
      backend_->forward(prompt_, embeds_.data());
      next_.push_back({row, kPrompt, true});
    }
    backend_->decode_token(args(0));
  }

  std::vector<Case> all() override {
    const auto costs = stage_costs(config(), dtype_, kRows, 1, kPrompt + 1);
    const auto bytes = [&](Stage stage) { return costs[static_cast<std::size_t>(stage)].cost.bytes; };
    std::int64_t backbone = 0;
    for (const Stage stage :
         {Stage::kImageIn, Stage::kQkv, Stage::kRopeAppend, Stage::kAttention, Stage::kAttnOut, Stage::kMlp})
      backbone += bytes(stage);
    add("prefill of 40 rows", std::nullopt, [this] { backend_->forward(prompt_, embeds_.data()); });
    add("advance", backbone, [this] { backend_->advance(next_); });
    add("condition", bytes(Stage::kCondition), [this] { backend_->condition(kToken); });
    add("modulate", bytes(Stage::kFmModulation), [this] { backend_->modulate(); });
    add("start", std::nullopt, [this] { backend_->start(noise_.data()); });
    add("step", bytes(Stage::kFmSteps), [this] { backend_->step(0, args(kToken)); });
    add("finish", std::nullopt, [this] { backend_->finish(out_.data()); });
    add("token", token_cost(config(), dtype_, kRows, kSteps, kPrompt + 1).total().bytes,
        [this] { backend_->decode_token(args(kToken)); });
    return cases_;
  }

 private:
  static std::size_t count(std::int64_t n) { return static_cast<std::size_t>(n); }

  TokenArgs args(std::int64_t token) { return {token, next_, 3.0f, 1.0f, noise_.data(), out_.data()}; }

  void add(const std::string& stage, std::optional<std::int64_t> bytes, std::function<void()> run) {
    cases_.push_back({str("stage ", name_of(dtype_), ": ", stage), bytes, std::move(run)});
  }

  DType dtype_;
  test::RandomModel model_;
  ModelWeights weights_;
  std::unique_ptr<Backend> backend_;
  std::vector<float> embeds_, noise_, out_;
  std::vector<RowRef> prompt_, next_;
  std::vector<Case> cases_;
};

}  // namespace

std::unique_ptr<Cases> make_stage_cases(DType dtype) { return std::make_unique<StageCases>(dtype); }

}  // namespace nsrt::counts
