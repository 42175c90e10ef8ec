// fm_head() against the flow-matching loop in double: dtypes, rows and branches, solvers, what lies in shared memory.
#include "core/solver.h"
#include "cuda/ops/fm_head/fm_head.h"
#include "numbers.h"

using namespace nsrt;
using namespace nsrt::cuda;
using kit::count;
using kit::Numbers;
using kit::Output;
using Kind = SolverStep::Kind;
using Doubles = std::vector<double>;

namespace {

constexpr DType kHalf = DType::kBFloat16, kFull = DType::kFloat32;

struct Setup {
  DType weights = kHalf, activations = kHalf;
  int branches = 2, images = 1;
  bool renorm = false, normalize = true;
  int shared_limit = 60 * 1024;
  int blocks = 4;
  int d = 40, d_mlp = 48, d_tok = 8, layers = 2, d_model = 24;

  int rows() const { return branches * images; }
  int width() const { return (3 * layers + 2) * d; }
};

const std::vector<SolverStep> kSteps = {
    {.kind = Kind::kUpdate, .time = 0, .draw = 1, .cx = 0.9f, .cv = 0.4f, .ce = 0.2f},
    {.kind = Kind::kHeunPredict, .time = 1, .cv = 0.5f},
    {.kind = Kind::kHeunCorrect, .time = 2, .cv = 0.25f},
    {.kind = Kind::kUpdate, .time = 3, .cx = 1.0f, .cv = 0.3f},
};
constexpr int kTimes = 4;
constexpr float kGuidance = 2.5f, kImageGuidance = 1.5f;

struct Product {
  Numbers w, bias;
  int n, k;

  Product(std::mt19937& random, int rows, int columns, DType dtype)
      : w(random, count(rows, columns), dtype, 1 / std::sqrt(columns)),
        bias(random, count(rows, 1), kFull, 0.3),
        n(rows),
        k(columns) {}

  FmProduct device() const { return {w.device(), bias.floats()}; }
  Doubles operator()(const Doubles& x) const {
    Doubles y;
    for (int i = 0; i < n; ++i) {
      double sum = bias[static_cast<std::size_t>(i)];
      for (int j = 0; j < k; ++j) sum += w[count(i, k) + static_cast<std::size_t>(j)] * x[static_cast<std::size_t>(j)];
      y.push_back(sum);
    }
    return y;
  }
};

struct Block {
  Numbers norm_weight, norm_bias;
  Product fc1, fc2;

  Block(std::mt19937& random, const Setup& s)
      : norm_weight(random, count(s.d, 1), kFull),
        norm_bias(random, count(s.d, 1), kFull),
        fc1(random, s.d_mlp, s.d, s.weights),
        fc2(random, s.d, s.d_mlp, s.weights) {}
};

Doubles normalized(const Doubles& x) {
  double mean = 0, squares = 0;
  for (const double v : x) mean += v / static_cast<double>(x.size());
  for (const double v : x) squares += (v - mean) * (v - mean) / static_cast<double>(x.size());
  Doubles y;
  for (const double v : x) y.push_back((v - mean) / std::sqrt(squares + 1e-6));
  return y;
}

struct Model {
  Setup s;
  Product input, output, image_in;
  std::vector<std::unique_ptr<Block>> blocks;
  Numbers modulations, next_weight, noise;

  Model(std::mt19937& random, const Setup& setup)
      : s(setup),
        input(random, s.d, s.d_tok, s.weights),
        output(random, s.d_tok, s.d, s.weights),
        image_in(random, s.d_model, s.d_tok, s.weights),
        modulations(random, count(kTimes * s.rows(), s.width()), s.activations, 0.5),
        next_weight(random, count(s.d_model, 1), kFull),
        noise(random, count(2, s.images, s.d_tok), kFull) {
    for (int i = 0; i < s.layers; ++i) blocks.push_back(std::make_unique<Block>(random, s));
  }

  double modulation(int time, int row, int at) const {
    return modulations[count(time * s.rows() + row, s.width()) + static_cast<std::size_t>(at)];
  }

  Doubles velocity(const Doubles& x, int time, int row) const {
    const auto modulated = [&](Doubles h, const Block* block, int base) {
      h = normalized(h);
      for (int i = 0; i < s.d; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (block) h[at] = h[at] * block->norm_weight[at] + block->norm_bias[at];
        h[at] = h[at] * (1 + modulation(time, row, base + s.d + i)) + modulation(time, row, base + i);
      }
      return h;
    };
    Doubles h = input(x);
    for (int l = 0; l < s.layers; ++l) {
      const Block& block = *blocks[static_cast<std::size_t>(l)];
      Doubles inner = block.fc1(modulated(h, &block, 3 * l * s.d));
      for (double& v : inner) v = kit::silu(v);
      const Doubles delta = block.fc2(inner);
      for (int i = 0; i < s.d; ++i)
        h[static_cast<std::size_t>(i)] +=
            modulation(time, row, (3 * l + 2) * s.d + i) * delta[static_cast<std::size_t>(i)];
    }
    return output(modulated(h, nullptr, 3 * s.layers * s.d));
  }

  Doubles guided(const std::vector<Doubles>& v, int image) const {
    const Doubles& condition = v[static_cast<std::size_t>(image)];
    if (s.branches == 1) return condition;
    const Doubles& none = v[static_cast<std::size_t>((s.branches - 1) * s.images + image)];
    const Doubles& middle = s.branches == 3 ? v[static_cast<std::size_t>(s.images + image)] : none;
    Doubles out;
    double mixed = 0, length = 0;
    for (std::size_t i = 0; i < none.size(); ++i) {
      out.push_back(none[i] + kImageGuidance * (middle[i] - none[i]) + kGuidance * (condition[i] - middle[i]));
      mixed += out[i] * out[i];
      length += condition[i] * condition[i];
    }
    if (s.renorm)
      for (double& x : out) x *= std::min(1.0, std::sqrt(length) / (std::sqrt(mixed) + 1e-6));
    return out;
  }

  // x of every image after the steps, before normalization.
  std::vector<Doubles> loop() const {
    std::vector<Doubles> x, kept_x(static_cast<std::size_t>(s.images)), kept_v(static_cast<std::size_t>(s.images));
    const auto draw = [&](int d, int image, std::size_t i) { return noise[count(d * s.images + image, s.d_tok) + i]; };
    for (int image = 0; image < s.images; ++image) {
      x.emplace_back();
      for (std::size_t i = 0; i < static_cast<std::size_t>(s.d_tok); ++i) x.back().push_back(draw(0, image, i));
    }
    for (const SolverStep& step : kSteps) {
      std::vector<Doubles> v;
      for (int r = 0; r < s.rows(); ++r)
        v.push_back(velocity(x[static_cast<std::size_t>(r % s.images)], static_cast<int>(step.time), r));
      for (int image = 0; image < s.images; ++image) {
        const Doubles g = guided(v, image);
        const auto n = static_cast<std::size_t>(image);
        if (step.kind == Kind::kHeunPredict) kept_x[n] = x[n], kept_v[n] = g;
        for (std::size_t i = 0; i < g.size(); ++i) {
          if (step.kind == Kind::kHeunCorrect)
            x[n][i] = kept_x[n][i] + static_cast<double>(step.cv) * (kept_v[n][i] + g[i]);
          else
            x[n][i] = static_cast<double>(step.cx) * x[n][i] + static_cast<double>(step.cv) * g[i] +
                      (step.draw >= 0 ? static_cast<double>(step.ce) * draw(static_cast<int>(step.draw), image, i) : 0);
        }
      }
    }
    return x;
  }
};

struct Results {
  Output velocity, latent, tokens, residual, x, squares;

  Results(const Setup& s, int blocks)
      : velocity(count(s.rows(), s.d_tok), kFull),
        latent(count(s.images, s.d_tok), kFull),
        tokens(count(s.images, s.d_tok), kFull),
        residual(count(s.rows(), s.d_model), kFull),
        x(count(s.rows(), s.d_model), s.activations),
        squares(count(s.rows(), blocks), kFull) {}
};

void check_results(const Model& m, const Results& got, int blocks, const std::string& name) {
  const Setup& s = m.s;
  Doubles latent, tokens, residual(count(s.rows(), s.d_model)), scaled(residual.size()), squares(count(s.rows(), 1)),
      sums(squares.size());
  const std::vector<Doubles> x = m.loop();
  for (int image = 0; image < s.images; ++image) {
    const Doubles& row = x[static_cast<std::size_t>(image)];
    const Doubles token = s.normalize ? normalized(row) : row;
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
  const double rounding = s.activations == kHalf ? 0.04 : 2e-5;
  kit::expect_close(got.latent.values(), latent, rounding, name + ": latent");
  kit::expect_close(got.tokens.values(), tokens, rounding, name + ": tokens");
  kit::expect_close(got.residual.values(), residual, rounding, name + ": residual");
  kit::expect_close(got.x.values(), scaled, rounding, name + ": next x");
  kit::expect_close(sums, squares, 2 * rounding, name + ": squares");
}

void test(const Setup& s, std::mt19937& random) {
  const Model m(random, s);
  std::vector<FmBlock> blocks;
  for (const auto& b : m.blocks)
    blocks.push_back({b->norm_weight.floats(), b->norm_bias.floats(), b->fc1.device(), b->fc2.device()});
  std::vector<FmStep> steps;
  for (const SolverStep& step : kSteps) steps.push_back(device_step(step));
  std::vector<float> inputs = {kGuidance, kImageGuidance, 0, 0};
  for (std::size_t i = 0; i < m.noise.size(); ++i) inputs.push_back(static_cast<float>(m.noise[i]));
  const kit::Array<FmBlock> device_blocks(blocks);
  const kit::Array<FmStep> device_steps(steps);
  const kit::Array<float> device_inputs(inputs);
  FmHeadTask task{.d = s.d,
                  .d_mlp = s.d_mlp,
                  .d_tok = s.d_tok,
                  .layers = s.layers,
                  .branches = s.branches,
                  .images = s.images,
                  .renorm = s.renorm,
                  .normalize = s.normalize,
                  .input = m.input.device(),
                  .blocks = device_blocks.get(),
                  .output = m.output.device(),
                  .modulations = m.modulations.device(),
                  .steps = device_steps.get(),
                  .step_count = static_cast<std::int32_t>(kSteps.size()),
                  .inputs = reinterpret_cast<const FmInputs*>(device_inputs.get())};
  emu::control::set_sm_count(s.blocks);
  const FmLaunch launch{
      .weights = s.weights, .activations = s.activations, .sm_count = s.blocks, .shared_limit = s.shared_limit};
  const int grid = fm_grid(task, launch);
  const kit::Array<std::uint64_t> words(fm_workspace_words(task), 0u);
  const std::string name = std::string("fm_head ") + (s.weights == kHalf ? "bf16" : "f32") +
                           (s.activations == kHalf ? "/bf16 " : "/f32 ") + std::to_string(s.branches) + " x " +
                           std::to_string(s.images) + (s.renorm ? ", renorm" : "") + ", " +
                           std::to_string(s.shared_limit) + " bytes";
  std::vector<std::byte> first;
  for (std::uint32_t launches = 0; launches < 2; ++launches) {
    const kit::Array<std::uint32_t> counter(std::vector<std::uint32_t>{launches});
    Results got(s, grid);
    task.launches = counter.get();
    task.velocity = got.velocity.floats();
    task.latent = got.latent.floats();
    task.tokens = got.tokens.floats();
    task.outlet = {.image_in = m.image_in.device(),
                   .d_model = s.d_model,
                   .next_weight = m.next_weight.floats(),
                   .residual = got.residual.floats(),
                   .x = got.x.device(),
                   .squares = got.squares.floats()};
    fm_head(task, {words.get(), fm_workspace_words(task)}, launch);
    check_results(m, got, grid, name);
    kit::expect(launches == 0 || got.latent.bytes() == first, name + ": a second run gives other bits");
    first = got.latent.bytes();
  }
}

}  // namespace

int main() {
  return kit::under_seeds([](std::mt19937& random) {
    test({}, random);
    test({.blocks = 11}, random);  // more than there are rows of velocity
    test({.branches = 3, .images = 2, .renorm = true, .shared_limit = 20 * 1024}, random);
    test({.activations = kFull, .branches = 1, .images = 3, .normalize = false}, random);
    test({.weights = kFull, .activations = kFull, .branches = 2, .images = 1, .d = 264, .d_mlp = 16}, random);
  });
}
