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
// Sequence, position and first position of each row; the last one sees none, and must be zeros.
const std::vector<RowPlace> kPlaces = {{0, 0}, {1, 69}, {0, 31}, {0, 32}, {1, 40}, {0, 10}};
const std::vector<std::int32_t> kStarts = {0, 0, 5, 0, 38, 20};
constexpr int kRows = 6;

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

std::string name_of(const Setup& s) {
  return "attention " + std::to_string(s.h_q) + "/" + std::to_string(s.h_kv) + " heads of " + std::to_string(s.d) +
         ", " + std::to_string(s.splits) + " splits" + (s.dtype == DType::kBFloat16 ? ", bf16" : ", f32");
}

// Launches of all rows, with one workspace.
class Attention {
 public:
  Attention(const Setup& s, const Numbers& q, const Numbers& k, const Numbers& v, kit::Output& y)
      : s_(s), places_(kPlaces), starts_(kStarts) {
    task_ = {.q = q.device(),
             .k = k.device(),
             .v = v.device(),
             .places = places_.get(),
             .starts = starts_.get(),
             .y = y.device(),
             .rows = kRows,
             .h_q = s.h_q,
             .h_kv = s.h_kv,
             .d_head = s.d,
             .capacity = kCapacity,
             .splits = s.splits};
    need_ = attn_workspace(task_);
    partials_ = std::make_unique<kit::Array<float>>(need_.partials);
    tickets_ = std::make_unique<kit::Array<std::uint32_t>>(need_.tickets, 0u);
  }

  void run(bool overlaps = false) const {
    attn_decode(task_, {partials_->get(), tickets_->get(), need_.partials, need_.tickets},
                {.dtype = s_.dtype, .overlaps = overlaps});
  }

 private:
  const Setup s_;
  const kit::Array<RowPlace> places_;
  const kit::Array<std::int32_t> starts_;
  AttnDecodeTask task_;
  WorkspaceNeed need_;
  std::unique_ptr<kit::Array<float>> partials_;
  std::unique_ptr<kit::Array<std::uint32_t>> tickets_;
};

void test(const Setup& s, std::mt19937& random) {
  const Numbers q(random, count(kRows, s.h_q, s.d), s.dtype, 2 / std::sqrt(s.d));
  const Numbers k(random, count(kSequences * s.h_kv, kCapacity, s.d), s.dtype);
  const Numbers v(random, count(kSequences * s.h_kv, kCapacity, s.d), s.dtype);
  kit::Output y(count(kRows, s.h_q, s.d), s.dtype);
  const Attention attention(s, q, k, v, y);
  attention.run();
  // Weights are rounded to bf16 for the tensor cores.
  const double rounding = s.dtype == DType::kBFloat16 ? 2.0 / 256 : 3e-6;
  kit::expect_close(y.values(), expected(s, q, k, v), rounding, name_of(s));
  const std::vector<std::byte> first = y.bytes();
  for (int i = 0; i < 2; ++i) attention.run(true);
  kit::expect(y.bytes() == first, name_of(s) + ": a second run gives other bits");
}

// What is no number must reach the results, so that generation stops: of one key, which one kv head has, or of a query,
// whose scores are then all none.
void test_no_numbers(const Setup& s, bool in_query, std::mt19937& random) {
  Numbers q(random, count(kRows, s.h_q, s.d), s.dtype), k(random, count(kSequences * s.h_kv, kCapacity, s.d), s.dtype);
  const Numbers v(random, count(kSequences * s.h_kv, kCapacity, s.d), s.dtype);
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (in_query)
    q.set(count(3, s.h_q, s.d), kNone);  // of row 3, which sees positions 0 to 32 of sequence 0
  else
    k.set(count(30, s.d), kNone);  // of sequence 0: rows 2 and 3 see it, row 0 does not
  kit::Output y(count(kRows, s.h_q, s.d), s.dtype);
  Attention(s, q, k, v, y).run();
  const std::vector<double> got = y.values();
  for (int r = 0; r < kRows; ++r) {
    const bool wanted = r == 3 || (!in_query && r == 2);
    kit::expect(std::isnan(got[count(r, s.h_q, s.d)]) == wanted,
                name_of(s) + ": row " + std::to_string(r) + (wanted ? " hides" : " has") + " what is no number");
  }
}

}  // namespace

int main(int argc, char** argv) {
  kit::read_arguments(argc, argv);
  return kit::under_seeds([](std::mt19937& random) {
    test({.h_q = 5, .h_kv = 1, .d = 128, .splits = 4}, random);
    test({.h_q = 4, .h_kv = 2, .d = 64, .splits = 1}, random);
    test({.h_q = 20, .h_kv = 1, .d = 64, .splits = 7}, random);  // more query heads than a block takes
    test({.h_q = 2, .h_kv = 2, .d = 40, .splits = 3}, random);
    test({.dtype = DType::kFloat32, .h_q = 6, .h_kv = 1, .d = 64, .splits = 2}, random);
    test({.dtype = DType::kFloat32, .h_q = 1, .h_kv = 1, .d = 256, .splits = 1}, random);
    for (const bool in_query : {false, true}) {
      test_no_numbers({.h_q = 4, .h_kv = 2, .d = 64, .splits = 3}, in_query, random);
      test_no_numbers({.dtype = DType::kFloat32, .h_q = 2, .h_kv = 1, .d = 40, .splits = 1}, in_query, random);
    }
  });
}
