// The flow-matching loop in double, and the random model it runs on.
#pragma once

#include <memory>

#include "core/solver.h"
#include "cuda/ops/fm_head/fm_head.h"
#include "numbers.h"

namespace kit {

using nsrt::SolverStep;
using nsrt::cuda::FmProduct;
using Kind = SolverStep::Kind;
using Doubles = std::vector<double>;

constexpr DType kHalf = DType::kBFloat16, kFull = DType::kFloat32;

struct Setup {
  DType weights = kHalf, activations = kHalf;
  int branches = 2, images = 1;
  bool renorm = false, normalize = true;
  int shared_limit = kit::shared_limit();
  int blocks = 4;
  int d = 40, d_mlp = 48, d_tok = 8, layers = 2, d_model = 24;

  int rows() const { return branches * images; }
  int width() const { return (3 * layers + 2) * d; }
};

inline const std::vector<SolverStep> kSteps = {
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

inline Doubles normalized(const Doubles& x) {
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
      for (double& v : inner) v = silu(v);
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

}  // namespace kit
