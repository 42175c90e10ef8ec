// Every epilogue, path and kind of tile of linear() against sums in double.
#include "cuda/ops/linear/linear.h"
#include "numbers.h"

using namespace nsrt;
using namespace nsrt::cuda;
using kit::count;
using kit::Numbers;
using kit::Output;

namespace {

constexpr int kSmCount = 4;
constexpr DType kHalf = DType::kBFloat16, kFull = DType::kFloat32;

struct Setup {
  DType weights = kHalf, activations = kHalf;
  LinearPath path = LinearPath::kTensor;
  int rows = 2, n = 40, k = 136;
};

std::string name(const Setup& s, const char* what) {
  return std::string(what) + (s.path == LinearPath::kTensor ? " tensor" : " fma") +
         (s.weights == kHalf ? " bf16" : " f32") + (s.activations == kHalf ? "/bf16 " : "/f32 ") +
         std::to_string(s.rows) + " x " + std::to_string(s.n) + " x " + std::to_string(s.k);
}

struct Workspace {
  kit::Array<float> partials{std::size_t{kSmCount} * 2 * 1024};
  kit::Array<std::uint32_t> tickets{256, 0u};
  LinearWorkspace view() const { return {partials.get(), tickets.get(), std::size_t{kSmCount} * 2 * 1024, 256}; }
};

void run(const Setup& s, const LinearTask& task, const Workspace& workspace, bool overlaps = false) {
  LinearLaunch launch{.weights = s.weights, .activations = s.activations, .path = s.path, .sm_count = kSmCount};
  launch.shared_limit = kit::shared_limit();
  launch.overlaps = overlaps;
  linear(task, workspace.view(), launch);
}

// [rows, n] = x w^T
std::vector<double> product(const Numbers& x, const Numbers& w, int rows, int n, int k) {
  std::vector<double> y(static_cast<std::size_t>(rows * n));
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < k; ++j)
        y[static_cast<std::size_t>(r * n + i)] +=
            x[static_cast<std::size_t>(r * k + j)] * w[static_cast<std::size_t>(i * k + j)];
  return y;
}

void test_store(const Setup& s, std::mt19937& random) {
  const Numbers x(random, count(s.rows, s.k), s.activations), w(random, count(s.n, s.k), s.weights, 0.1);
  const Numbers bias(random, count(s.n, 1), kFull), residual(random, count(s.rows, s.n), kFull);
  Output y(count(s.rows, s.n), kFull);
  const Workspace workspace;
  LinearTask task{.segment_count = 1,
                  .k = s.k,
                  .rows = s.rows,
                  .x = x.device(),
                  .silu = true,
                  .y = y.device(),
                  .y_stride = s.n,
                  .residual = const_cast<float*>(residual.floats())};
  task.segments[0] = {.w = w.device(), .bias = bias.floats(), .n = s.n};
  run(s, task, workspace);
  std::vector<double> wanted = product(x, w, s.rows, s.n, s.k);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    wanted[i] = kit::silu(wanted[i] + bias[i % static_cast<std::size_t>(s.n)]) + residual[i];
  kit::expect_close(y.values(), wanted, kit::tolerance(kFull, static_cast<std::size_t>(s.k)), name(s, "store"));
  const std::vector<std::byte> first = y.bytes();
  run(s, task, workspace);
  kit::expect(y.bytes() == first, name(s, "store") + ": a second run gives other bits");
}

// Launches that overlap their predecessors read what those wrote, and share a workspace with them.
void test_overlap(const Setup& s, std::mt19937& random) {
  const Numbers x(random, count(s.rows, s.k), s.activations);
  const Numbers in(random, count(s.n, s.k), s.weights, 0.1), back(random, count(s.k, s.n), s.weights, 0.1);
  Output inner(count(s.rows, s.n), s.activations), y(count(s.rows, s.k), s.activations);
  const Workspace workspace;
  LinearTask first{.segment_count = 1,
                   .k = s.k,
                   .rows = s.rows,
                   .x = x.device(),
                   .epilogue = Epilogue::kActivate,
                   .y = inner.device(),
                   .y_stride = s.n};
  first.segments[0] = {.w = in.device(), .n = s.n};
  LinearTask second = first;
  second.k = s.n;
  second.x = inner.device();
  second.y = y.device();
  second.y_stride = s.k;
  second.segments[0] = {.w = back.device(), .n = s.k};
  const auto twice = [&](bool overlaps) {
    for (int i = 0; i < 2; ++i) {
      run(s, first, workspace, overlaps && i > 0);
      run(s, second, workspace, overlaps);
    }
    return y.bytes();
  };
  const std::vector<std::byte> wanted = twice(false);
  kit::expect(twice(true) == wanted, name(s, "overlapping launches give other bits"));
}

void test_residual(const Setup& s, std::mt19937& random) {
  const Numbers x(random, count(s.rows, s.k), s.activations), w(random, count(s.n, s.k), s.weights, 0.1);
  const Numbers next(random, count(s.n, 1), kFull);
  Numbers residual(random, count(s.rows, s.n), kFull);
  const int tiles = (s.n + kTileRows - 1) / kTileRows;
  Output y(count(s.rows, s.n), s.activations), squares(count(s.rows, tiles), kFull);
  const Workspace workspace;
  LinearTask task{.segment_count = 1,
                  .k = s.k,
                  .rows = s.rows,
                  .x = x.device(),
                  .epilogue = Epilogue::kResidual,
                  .y = y.device(),
                  .y_stride = s.n,
                  .residual = static_cast<float*>(residual.device()),
                  .next_weight = next.floats(),
                  .squares = squares.floats()};
  task.segments[0] = {.w = w.device(), .n = s.n};
  run(s, task, workspace);
  std::vector<double> sum = product(x, w, s.rows, s.n, s.k), scaled(sum.size()),
                      norms(static_cast<std::size_t>(s.rows)), got(static_cast<std::size_t>(s.rows));
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i] += residual[i];
    scaled[i] = sum[i] * next[i % static_cast<std::size_t>(s.n)];
    norms[i / static_cast<std::size_t>(s.n)] += sum[i] * sum[i];
  }
  const std::vector<double> parts = squares.values();
  for (std::size_t i = 0; i < parts.size(); ++i) got[i / static_cast<std::size_t>(tiles)] += parts[i];
  const double rounding = kit::tolerance(kFull, static_cast<std::size_t>(s.k));
  kit::expect_close(residual.now(), sum, rounding, name(s, "residual"));
  kit::expect_close(y.values(), scaled, kit::tolerance(s.activations, static_cast<std::size_t>(s.k)),
                    name(s, "scaled"));
  kit::expect_close(got, norms, 10 * rounding, name(s, "squares"));
}

// A normalized input, in as many parts as a producer may leave its squares.
void test_gated(const Setup& s, std::mt19937& random) {
  const Numbers x(random, count(s.rows, s.k), s.activations), gate(random, count(s.n, s.k), s.weights, 0.1);
  const Numbers up(random, count(s.n, s.k), s.weights, 0.1), bias(random, count(s.n, 1), kFull);
  const int parts = 37;
  std::vector<float> squares(count(s.rows, parts));
  std::uniform_real_distribution<float> uniform(0.0f, 2.0f);
  for (float& square : squares) square = uniform(random);
  const kit::Array<float> statistics(squares);
  Output y(count(s.rows, s.n), s.activations);
  const Workspace workspace;
  LinearTask task{.segment_count = 1,
                  .k = s.k,
                  .rows = s.rows,
                  .x = x.device(),
                  .norm = {.squares = statistics.get(), .parts = parts, .width = 100, .eps = 1e-3f},
                  .epilogue = Epilogue::kGated,
                  .y = y.device(),
                  .y_stride = s.n};
  task.segments[0] = {.w = gate.device(), .w2 = up.device(), .bias = bias.floats(), .n = s.n, .kind = TileKind::kGated};
  run(s, task, workspace);
  const std::vector<double> g = product(x, gate, s.rows, s.n, s.k), u = product(x, up, s.rows, s.n, s.k);
  std::vector<double> wanted(g.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const std::size_t r = i / static_cast<std::size_t>(s.n);
    double sum = 0;
    for (int p = 0; p < parts; ++p) sum += squares[r * parts + static_cast<std::size_t>(p)];
    const double scale = 1 / std::sqrt(sum / 100 + 1e-3);
    wanted[i] = kit::silu(g[i] * scale + bias[i % static_cast<std::size_t>(s.n)]) * (u[i] * scale);
  }
  kit::expect_close(y.values(), wanted, kit::tolerance(s.activations, static_cast<std::size_t>(s.k)), name(s, "gated"));
}

void test_times(const Setup& s, std::mt19937& random) {
  const int steps = 3;
  const Numbers x(random, count(s.rows, s.k), s.activations), w(random, count(s.n, s.k), s.weights, 0.1);
  const Numbers times(random, count(steps, s.n), kFull);
  Output y(count(steps * s.rows, s.n), s.activations);
  const Workspace workspace;
  LinearTask task{.segment_count = 1,
                  .k = s.k,
                  .rows = s.rows,
                  .x = x.device(),
                  .epilogue = Epilogue::kTimes,
                  .y = y.device(),
                  .y_stride = s.n,
                  .times = times.floats(),
                  .steps = steps};
  task.segments[0] = {.w = w.device(), .n = s.n};
  run(s, task, workspace);
  const std::vector<double> base = product(x, w, s.rows, s.n, s.k);
  std::vector<double> wanted;
  for (std::size_t t = 0; t < steps; ++t)
    for (std::size_t i = 0; i < base.size(); ++i)
      wanted.push_back(
          kit::silu(base[i] + times[t * static_cast<std::size_t>(s.n) + i % static_cast<std::size_t>(s.n)]));
  kit::expect_close(y.values(), wanted, kit::tolerance(s.activations, static_cast<std::size_t>(s.k)), name(s, "times"));
}

// Two query heads on one kv head of d_head dimensions; rows of two sequences at positions of their own.
void test_qkv(const Setup& s, std::mt19937& random, int d) {
  const int h_q = 2, h_kv = 1, half = d / 2, positions = 7;
  const Numbers x(random, count(s.rows, s.k), s.activations), q(random, count(h_q * d, s.k), s.weights, 0.1);
  const Numbers k(random, count(h_kv * d, s.k), s.weights, 0.1), v(random, count(h_kv * d, s.k), s.weights, 0.1);
  const Numbers bias(random, count(h_kv * d, 1), kFull);
  std::vector<float> cos, sin;
  for (int p = 0; p < positions; ++p)
    for (int i = 0; i < half; ++i) {
      cos.push_back(static_cast<float>(std::cos(0.3 * p * (i + 1))));
      sin.push_back(static_cast<float>(std::sin(0.3 * p * (i + 1))));
    }
  std::vector<RowPlace> places;
  for (int r = 0; r < s.rows; ++r) places.push_back({r % 2, (3 * r + 1) / 2 % positions});
  const kit::Array<float> cosines(cos), sines(sin);
  const kit::Array<RowPlace> where(places);
  Output y(count(s.rows, h_q * d), s.activations), keys(count(2 * h_kv * positions, d), s.activations),
      values(count(2 * h_kv * positions, d), s.activations);
  const Workspace workspace;
  LinearTask task{.segment_count = 3,
                  .k = s.k,
                  .rows = s.rows,
                  .x = x.device(),
                  .epilogue = Epilogue::kQkv,
                  .y = y.device(),
                  .y_stride = h_q * d,
                  .d_head = d,
                  .h_kv = h_kv,
                  .capacity = positions,
                  .k_cache = keys.device(),
                  .v_cache = values.device(),
                  .cos = cosines.get(),
                  .sin = sines.get(),
                  .places = where.get()};
  task.segments[0] = {.w = q.device(), .n = h_q * d, .kind = TileKind::kRotary};
  task.segments[1] = {.w = k.device(), .bias = bias.floats(), .n = h_kv * d, .kind = TileKind::kRotary};
  task.segments[2] = {.w = v.device(), .n = h_kv * d};
  run(s, task, workspace);

  const std::vector<double> qs = product(x, q, s.rows, h_q * d, s.k), ks = product(x, k, s.rows, d, s.k),
                            vs = product(x, v, s.rows, d, s.k), got_keys = keys.values(), got_values = values.values();
  std::vector<double> wanted_q(qs.size()), wanted_k, wanted_v, found_k, found_v;
  for (int r = 0; r < s.rows; ++r) {
    const RowPlace place = places[static_cast<std::size_t>(r)];
    const auto turned = [&](const std::vector<double>& from, std::size_t base, int i, bool biased) {
      const double low =
          from[base + static_cast<std::size_t>(i % half)] + (biased ? bias[static_cast<std::size_t>(i % half)] : 0);
      const double high = from[base + static_cast<std::size_t>(i % half + half)] +
                          (biased ? bias[static_cast<std::size_t>(i % half + half)] : 0);
      const auto at = static_cast<std::size_t>(place.position * half + i % half);
      return i < half ? low * cos[at] - high * sin[at] : high * cos[at] + low * sin[at];
    };
    for (int h = 0; h < h_q; ++h)
      for (int i = 0; i < d; ++i) {
        const std::size_t base = count(r, h_q * d) + count(h, d);
        wanted_q[base + static_cast<std::size_t>(i)] = turned(qs, base, i, false) / std::sqrt(d);
      }
    for (int i = 0; i < d; ++i) {
      const auto at = static_cast<std::size_t>((place.sequence * positions + place.position) * d + i);
      wanted_k.push_back(turned(ks, count(r, d), i, true));
      wanted_v.push_back(vs[count(r, d) + static_cast<std::size_t>(i)]);
      found_k.push_back(got_keys[at]);
      found_v.push_back(got_values[at]);
    }
  }
  const double rounding = kit::tolerance(s.activations, static_cast<std::size_t>(s.k));
  const std::string what = "qkv of heads of " + std::to_string(d);
  kit::expect_close(y.values(), wanted_q, rounding, name(s, (what + ": q").c_str()));
  kit::expect_close(found_k, wanted_k, rounding, name(s, (what + ": k").c_str()));
  kit::expect_close(found_v, wanted_v, rounding, name(s, (what + ": v").c_str()));
}

void test_all(const Setup& s, std::mt19937& random) {
  test_store(s, random);
  test_overlap(s, random);
  test_residual(s, random);
  test_gated(s, random);
  test_times(s, random);
  for (const int d : {32, 40}) test_qkv(s, random, d);
}

}  // namespace

int main(int argc, char** argv) {
  kit::read_arguments(argc, argv);
  emu::control::set_sm_count(kSmCount);
  return kit::under_seeds([](std::mt19937& random) {
    // Wide and narrow; more rows than a block of 8, none of it a multiple of a tile.
    test_all({.rows = 2, .n = 72, .k = 264}, random);
    test_all({.rows = 11, .n = 24, .k = 40}, random);
    test_store({.rows = 2, .n = 128, .k = 1344}, random);  // more steps a warp than it has x of in registers
    test_store({.rows = 9, .n = 64, .k = 2600}, random);
    test_store({.rows = 33, .n = 72, .k = 1344}, random);
    test_store({.rows = 1, .n = 16, .k = 2048}, random);  // one tile for all blocks
    test_all({.path = LinearPath::kFma, .rows = 3, .n = 40, .k = 136}, random);
    test_all({.activations = kFull, .path = LinearPath::kFma, .rows = 2, .n = 40, .k = 136}, random);
    test_all({.weights = kFull, .activations = kFull, .path = LinearPath::kFma, .rows = 6, .n = 24, .k = 264}, random);
  });
}
