// fm_head() against the flow-matching loop in double: dtypes, rows and branches, solvers, what lies in shared memory,
// a token in parts.
#include "fm_model.h"

using namespace nsrt;
using namespace nsrt::cuda;
using kit::count;
using kit::Doubles;
using kit::kSteps;
using kit::Model;
using kit::Output;
using kit::Setup;

namespace {

struct Results {
  Output velocity, latent, tokens, residual, x, squares;

  Results(const Setup& s, int blocks)
      : velocity(count(s.rows(), s.d_tok), kit::kFull),
        latent(count(s.images, s.d_tok), kit::kFull),
        tokens(count(s.images, s.d_tok), kit::kFull),
        residual(count(s.rows(), s.d_model), kit::kFull),
        x(count(s.rows(), s.d_model), s.activations),
        squares(count(s.rows(), blocks), kit::kFull) {}
};

void check_results(const Model& m, const Results& got, int blocks, const std::string& name) {
  const Setup& s = m.s;
  Doubles latent, tokens, residual(count(s.rows(), s.d_model)), scaled(residual.size()), squares(count(s.rows(), 1)),
      sums(squares.size());
  const std::vector<Doubles> x = m.loop();
  for (int image = 0; image < s.images; ++image) {
    const Doubles& row = x[static_cast<std::size_t>(image)];
    const Doubles token = s.normalize ? kit::normalized(row) : row;
    latent.insert(latent.end(), row.begin(), row.end());
    tokens.insert(tokens.end(), token.begin(), token.end());
    const Doubles e = m.image_in(token);
    for (int r = image; r < s.rows(); r += s.images)
      for (int i = 0; i < s.d_model; ++i) {
        const auto at = count(r, s.d_model) + static_cast<std::size_t>(i);
        residual[at] = e[static_cast<std::size_t>(i)];
        scaled[at] = residual[at] * m.next_weight[static_cast<std::size_t>(i)];
        squares[static_cast<std::size_t>(r)] += residual[at] * residual[at];
      }
  }
  const Doubles parts = got.squares.values();
  for (std::size_t i = 0; i < parts.size(); ++i) sums[i / static_cast<std::size_t>(blocks)] += parts[i];
  // A dozen products after one another, each rounded; guidance spreads their errors.
  const double rounding = s.activations == kit::kHalf ? 0.04 : 2e-5;
  kit::expect_close(got.latent.values(), latent, rounding, name + ": latent");
  kit::expect_close(got.tokens.values(), tokens, rounding, name + ": tokens");
  kit::expect_close(got.residual.values(), residual, rounding, name + ": residual");
  kit::expect_close(got.x.values(), scaled, rounding, name + ": next x");
  kit::expect_close(sums, squares, 2 * rounding, name + ": squares");
}

// A model on the device, and what it runs with.
class Token {
 public:
  explicit Token(std::mt19937& random, const Setup& setup)
      : s(setup), m(random, s), steps_(device_steps()), blocks_(device_blocks()), inputs_(device_inputs()) {
    emu::control::set_sm_count(s.blocks);
    launch_ = {
        .weights = s.weights, .activations = s.activations, .sm_count = s.blocks, .shared_limit = s.shared_limit};
    grid = fm_grid(task(), launch_);
    words_ = std::make_unique<kit::Array<std::uint64_t>>(fm_workspace_words(task()), 0u);
    name = std::string("fm_head ") + (s.weights == kit::kHalf ? "bf16" : "f32") +
           (s.activations == kit::kHalf ? "/bf16 " : "/f32 ") + std::to_string(s.branches) + " x " +
           std::to_string(s.images) + (s.renorm ? ", renorm" : "") + ", " + std::to_string(s.shared_limit) + " bytes";
  }

  FmHeadTask task() const {
    return {.d = s.d,
            .d_mlp = s.d_mlp,
            .d_tok = s.d_tok,
            .layers = s.layers,
            .branches = s.branches,
            .images = s.images,
            .renorm = s.renorm,
            .normalize = s.normalize,
            .input = m.input.device(),
            .blocks = blocks_.get(),
            .output = m.output.device(),
            .modulations = m.modulations.device(),
            .steps = steps_.get(),
            .step_count = static_cast<std::int32_t>(kSteps.size()),
            .inputs = reinterpret_cast<const FmInputs*>(inputs_.get())};
  }

  // A launch of a whole token, or of those steps.
  void run(Results& to, std::int32_t begin = 0, std::int32_t end = -1, float* carry = nullptr, bool finishes = true) {
    const kit::Array<std::uint32_t> counter(std::vector<std::uint32_t>{launches_++});
    FmHeadTask t = task();
    t.step_begin = begin;
    t.step_end = end;
    t.carry = carry;
    t.finishes = finishes;
    t.launches = counter.get();
    t.velocity = to.velocity.floats();
    t.latent = to.latent.floats();
    t.tokens = to.tokens.floats();
    t.outlet = {.image_in = m.image_in.device(),
                .d_model = s.d_model,
                .next_weight = m.next_weight.floats(),
                .residual = to.residual.floats(),
                .x = to.x.device(),
                .squares = to.squares.floats()};
    fm_head(t, {words_->get(), fm_workspace_words(t)}, launch_);
  }

  // x is noise 0; nothing is kept yet.
  std::vector<float> first_carry() const {
    std::vector<float> carry(count(3, s.images, s.d_tok));
    for (std::size_t i = 0; i < carry.size() / 3; ++i) carry[i] = static_cast<float>(m.noise[i]);
    return carry;
  }

  const Setup s;
  const Model m;
  int grid;
  std::string name;

 private:
  static std::vector<FmStep> device_steps() {
    std::vector<FmStep> steps;
    for (const auto& step : kSteps) steps.push_back(device_step(step));
    return steps;
  }
  std::vector<FmBlock> device_blocks() const {
    std::vector<FmBlock> blocks;
    for (const auto& b : m.blocks)
      blocks.push_back({b->norm_weight.floats(), b->norm_bias.floats(), b->fc1.device(), b->fc2.device()});
    return blocks;
  }
  std::vector<float> device_inputs() const {
    std::vector<float> inputs = {kit::kGuidance, kit::kImageGuidance, 0, 0};
    for (std::size_t i = 0; i < m.noise.size(); ++i) inputs.push_back(static_cast<float>(m.noise[i]));
    return inputs;
  }

  const kit::Array<FmStep> steps_;
  const kit::Array<FmBlock> blocks_;
  const kit::Array<float> inputs_;
  FmLaunch launch_;
  std::unique_ptr<kit::Array<std::uint64_t>> words_;
  std::uint32_t launches_ = 0;
};

void test(const Setup& s, std::mt19937& random) {
  Token token(random, s);
  std::vector<std::byte> first;
  for (int i = 0; i < 2; ++i) {
    Results got(s, token.grid);
    token.run(got);
    check_results(token.m, got, token.grid, token.name);
    kit::expect(i == 0 || got.latent.bytes() == first, token.name + ": a second run gives other bits");
    first = got.latent.bytes();
  }
}

// kSteps has a step of every kind. They give the same bits in parts as in one launch.
void test_parts(const Setup& s, std::mt19937& random, int steps_per_launch, bool finishes_alone) {
  Token token(random, s);
  Results whole(s, token.grid), parts(s, token.grid);
  token.run(whole);
  const kit::Array<float> carry(token.first_carry());
  const int last = static_cast<int>(kSteps.size());
  for (int at = 0; at < last; at += steps_per_launch) {
    const int end = std::min(at + steps_per_launch, last);
    token.run(parts, at, end, carry.get(), end == last && !finishes_alone);
  }
  if (finishes_alone) {
    kit::expect(std::isnan(parts.tokens.values()[0]), token.name + ": tokens before they are finished");
    token.run(parts, last, last, carry.get());
  }
  const std::string name = token.name + ", " + std::to_string(steps_per_launch) + " steps a launch: ";
  kit::expect(parts.velocity.bytes() == whole.velocity.bytes(), name + "other velocities");
  kit::expect(parts.latent.bytes() == whole.latent.bytes(), name + "another latent");
  kit::expect(parts.tokens.bytes() == whole.tokens.bytes(), name + "other tokens");
  kit::expect(parts.residual.bytes() == whole.residual.bytes(), name + "another residual stream");
  kit::expect(parts.squares.bytes() == whole.squares.bytes(), name + "other squares");
}

}  // namespace

int main(int argc, char** argv) {
  kit::read_arguments(argc, argv);
  return kit::under_seeds([](std::mt19937& random) {
    test({}, random);
    test({.blocks = 20}, random);  // more than there are rows of velocity: some have the time to fall behind
    test({.branches = 3, .images = 2, .renorm = true, .shared_limit = 20 * 1024}, random);
    test({.activations = kit::kFull, .branches = 1, .images = 3, .normalize = false}, random);
    test({.weights = kit::kFull, .activations = kit::kFull, .branches = 2, .images = 1, .d = 264, .d_mlp = 16}, random);
    test({.d = 264, .d_mlp = 136}, random);  // whole warps of columns, and a part of one
    // About 35 KB a matrix: six, four or two stay in shared memory where a block may have 227, 163 or 99 KB.
    test({.branches = 1, .blocks = 1, .d = 136, .d_mlp = 128, .layers = 3}, random);
    // More units than a thread holds modulations of: a question of places, not of order, and slow to look for races in.
    if (!emu::control::race_mode())
      test({.activations = kit::kFull, .branches = 1, .images = 9, .d = 264, .d_mlp = 16}, random);
    test_parts({}, random, 1, true);
    test_parts({.blocks = 11}, random, 3, false);  // in parts, with blocks that send no velocity
    test_parts({.activations = kit::kFull, .branches = 1, .images = 3}, random, 2, true);
  });
}
