// gemm() with the plain loops behind it, against sums in double: both results, with and without a bias, shapes around
// the edges of a block; and what it refuses. The real libraries are held to the same numbers on a GPU.
#include <functional>

#include "cuda/ops/gemm/gemm.h"
#include "numbers.h"

using namespace nsrt;
using namespace nsrt::cuda;
using kit::count;
using kit::Numbers;

namespace {

constexpr DType kHalf = DType::kBFloat16, kFull = DType::kFloat32;

GemmLaunch launch() { return {.library = gemm_library(9, 0), .sm_count = 4}; }

struct Setup {
  int m, n, k;
  bool biased;
};

void test(const Setup& s, std::mt19937& random) {
  const std::string name = std::to_string(s.m) + " x " + std::to_string(s.n) + " x " + std::to_string(s.k);
  const Numbers x(random, count(s.m, s.k), kHalf), w(random, count(s.n, s.k), kHalf, 0.1);
  const Numbers bias(random, count(s.n, 1), kFull);
  Numbers residual(random, count(s.m, s.n), kFull);
  kit::Output y(count(s.m, s.n), kHalf);
  std::vector<double> wanted(residual.size()), added(residual.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::size_t width = static_cast<std::size_t>(s.n), depth = static_cast<std::size_t>(s.k);
    double sum = s.biased ? bias[i % width] : 0;
    for (std::size_t j = 0; j < depth; ++j) sum += x[i / width * depth + j] * w[i % width * depth + j];
    wanted[i] = sum;
    added[i] = sum + residual[i];
  }
  GemmTask task{.x = x.device(),
                .w = w.device(),
                .bias = s.biased ? bias.floats() : nullptr,
                .y = y.device(),
                .m = s.m,
                .n = s.n,
                .k = s.k};
  gemm(task, launch());
  kit::expect_close(y.values(), wanted, kit::tolerance(kHalf, static_cast<std::size_t>(s.k)), "y of " + name);
  const std::vector<std::byte> first = y.bytes();
  gemm(task, launch());
  kit::expect(y.bytes() == first, "y of " + name + ": a second run gives other bits");
  task.y = nullptr;
  task.residual = static_cast<float*>(residual.device());
  gemm(task, launch());
  kit::expect_close(residual.now(), added, kit::tolerance(kFull, static_cast<std::size_t>(s.k)), "residual of " + name);
}

void test_refusals() {
  const kit::Array<std::byte> memory(std::vector<std::byte>(1024));
  const GemmTask good{.x = memory.get(), .w = memory.get(), .y = memory.get(), .m = 3, .n = 8, .k = 16};
  const auto refused = [&](const std::string& said, const std::function<void(GemmTask&, GemmLaunch&)>& change) {
    GemmTask task = good;
    GemmLaunch way = launch();
    change(task, way);
    try {
      gemm(task, way);
    } catch (const InvalidRequest& error) {
      return kit::expect(std::string(error.what()).find(said) != std::string::npos,
                         "'" + said + "' is not in: " + error.what());
    }
    kit::expect(false, "not refused: " + said);
  };
  refused("bfloat16 weights", [](GemmTask&, GemmLaunch& way) { way.weights = DType::kFloat32; });
  refused("not 0 x 16", [](GemmTask& t, GemmLaunch&) { t.m = 0; });
  refused("not n = 12 and k = 16", [](GemmTask& t, GemmLaunch&) { t.n = 12; });
  refused("and k = 4", [](GemmTask& t, GemmLaunch&) { t.k = 4; });
  refused("both operands", [](GemmTask& t, GemmLaunch&) { t.w = nullptr; });
  refused("either y or the residual", [](GemmTask& t, GemmLaunch&) { t.y = nullptr; });
  refused("x at a multiple of 16", [](GemmTask& t, GemmLaunch&) { t.x = static_cast<const std::byte*>(t.x) + 2; });
  refused("multiprocessors", [](GemmTask&, GemmLaunch& way) { way.sm_count = 0; });
  try {
    gemm(good, {.sm_count = 4});
    kit::expect(false, "no library, and no error");
  } catch (const Error&) {
  }
  kit::expect(gemm_name(nullptr) == "linear kernels in chunks of 64", "the name of no library");
  kit::expect(cost(good).flops == 2 * 3 * 8 * 16, "flops");
  kit::expect(cost(good).bytes == 2 * (3 * 16 + 8 * 16 + 3 * 8), "bytes");
}

}  // namespace

int main() {
  test_refusals();
  return kit::under_seeds([](std::mt19937& random) {
    test({.m = 1, .n = 8, .k = 8, .biased = false}, random);
    test({.m = 33, .n = 136, .k = 72, .biased = true}, random);
    test({.m = 65, .n = 24, .k = 264, .biased = false}, random);
    test({.m = 8, .n = 128, .k = 64, .biased = true}, random);
  });
}
