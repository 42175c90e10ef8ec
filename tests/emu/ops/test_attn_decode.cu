// attn_decode() against softmax in double: tensor cores and multiply-and-add, one split and many, rows that begin and
// end anywhere, several rows of one sequence.
#include "cuda/ops/attn_decode/attn_decode.h"
#include "numbers.h"

using namespace nsrt;
using namespace nsrt::cuda;
using kit::count;
using kit::Numbers;

namespace {

struct Setup {
  DType dtype = DType::kBFloat16;
  int h_q = 5, h_kv = 1, d = 64, splits = 3;
};

constexpr int kSequences = 2, kCapacity = 70;
// Sequence, position and first position of each row.
const std::vector<RowPlace> kPlaces = {{0, 0}, {1, 69}, {0, 31}, {0, 32}, {1, 40}};
const std::vector<std::int32_t> kStarts = {0, 0, 5, 0, 38};

std::vector<double> expected(const Setup& s, const Numbers& q, const Numbers& k, const Numbers& v) {
  std::vector<double> y;
  for (std::size_t r = 0; r < kPlaces.size(); ++r) {
    for (int h = 0; h < s.h_q; ++h) {
      const std::size_t query =
          (r * static_cast<std::size_t>(s.h_q) + static_cast<std::size_t>(h)) * static_cast<std::size_t>(s.d);
      const std::size_t cache = count(kPlaces[r].sequence * s.h_kv + h / (s.h_q / s.h_kv), kCapacity, s.d);
      std::vector<double> scores;
      double largest = -1e300, sum = 0;
      for (int p = kStarts[r]; p <= kPlaces[r].position; ++p) {
        double dot = 0;
        for (int i = 0; i < s.d; ++i)
          dot += q[query + static_cast<std::size_t>(i)] * k[cache + count(p, s.d) + static_cast<std::size_t>(i)];
        scores.push_back(dot);
        largest = std::max(largest, dot);
      }
      for (double& x : scores) sum += x = std::exp(x - largest);
      for (int i = 0; i < s.d; ++i) {
        double out = 0;
        for (std::size_t p = 0; p < scores.size(); ++p)
          out += scores[p] / sum *
                 v[cache + (p + static_cast<std::size_t>(kStarts[r])) * static_cast<std::size_t>(s.d) +
                   static_cast<std::size_t>(i)];
        y.push_back(out);
      }
    }
  }
  return y;
}

void test(const Setup& s, std::mt19937& random) {
  const int rows = static_cast<int>(kPlaces.size());
  const Numbers q(random, count(rows, s.h_q, s.d), s.dtype, 2 / std::sqrt(s.d));
  const Numbers k(random, count(kSequences * s.h_kv, kCapacity, s.d), s.dtype);
  const Numbers v(random, count(kSequences * s.h_kv, kCapacity, s.d), s.dtype);
  const kit::Array<RowPlace> places(kPlaces);
  const kit::Array<std::int32_t> starts(kStarts);
  kit::Output y(count(rows, s.h_q, s.d), s.dtype);
  const AttnDecodeTask task{.q = q.device(),
                            .k = k.device(),
                            .v = v.device(),
                            .places = places.get(),
                            .starts = starts.get(),
                            .y = y.device(),
                            .rows = rows,
                            .h_q = s.h_q,
                            .h_kv = s.h_kv,
                            .d_head = s.d,
                            .capacity = kCapacity,
                            .splits = s.splits};
  const WorkspaceNeed need = attn_workspace(task);
  const kit::Array<float> partials(need.partials);
  const kit::Array<std::uint32_t> tickets(need.tickets, 0u);
  const AttnWorkspace workspace{partials.get(), tickets.get(), need.partials, need.tickets};
  const std::string name = "attention " + std::to_string(s.h_q) + "/" + std::to_string(s.h_kv) + " heads of " +
                           std::to_string(s.d) + ", " + std::to_string(s.splits) + " splits" +
                           (s.dtype == DType::kBFloat16 ? ", bf16" : ", f32");
  attn_decode(task, workspace, {.dtype = s.dtype});
  // Weights are rounded to bf16 for the tensor cores.
  const double rounding = s.dtype == DType::kBFloat16 ? 2.0 / 256 : 3e-6;
  kit::expect_close(y.values(), expected(s, q, k, v), rounding, name);
  const std::vector<std::byte> first = y.bytes();
  for (int i = 0; i < 2; ++i) attn_decode(task, workspace, {.dtype = s.dtype, .overlaps = true});
  kit::expect(y.bytes() == first, name + ": a second run gives other bits");
}

}  // namespace

int main() {
  return kit::under_seeds([](std::mt19937& random) {
    test({.h_q = 5, .h_kv = 1, .d = 128, .splits = 4}, random);
    test({.h_q = 4, .h_kv = 2, .d = 64, .splits = 1}, random);
    test({.h_q = 20, .h_kv = 1, .d = 64, .splits = 7}, random);  // more query heads than a block takes
    test({.h_q = 2, .h_kv = 2, .d = 40, .splits = 3}, random);
    test({.dtype = DType::kFloat32, .h_q = 6, .h_kv = 1, .d = 64, .splits = 2}, random);
    test({.dtype = DType::kFloat32, .h_q = 1, .h_kv = 1, .d = 256, .splits = 1}, random);
  });
}
