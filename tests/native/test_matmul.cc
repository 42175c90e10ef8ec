// The product of every ISA level this machine has, against double precision, at sizes around the vector widths and the
// tiles. Some arrays end at a page that cannot be touched: of AMX's own loads and stores no sanitizer knows.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "core/bf16.h"
#include "kernel_tests.h"
#include "random_model.h"
#include "test_kit.h"

namespace nsrt::cpu {
namespace {

using test::close;
using test::for_each_level;
using test::kSizes;
using test::random_floats;
using test::to_bf16;

void check_matmul(const KernelTable& table, std::int64_t n, std::int64_t k, std::int64_t rows, DType w_dtype,
                  bool dot) {
  const auto w = random_floats(static_cast<std::size_t>(n * k), 1),
             x = random_floats(static_cast<std::size_t>(rows * k), 2);
  const auto wb = to_bf16(w), xb = to_bf16(x);
  const bool half = w_dtype == DType::kBFloat16;
  std::vector<float> y(static_cast<std::size_t>(rows * n), NAN);
  std::vector<std::uint16_t> packed(static_cast<std::size_t>(table.packs && dot ? packed_size(rows, k) : 0));
  table.matmul({.w = half ? static_cast<const void*>(wb.data()) : w.data(),
                .w_dtype = w_dtype,
                .cols = k,
                .x = dot ? static_cast<const void*>(xb.data()) : x.data(),
                .x_dtype = dot ? DType::kBFloat16 : DType::kFloat32,
                .x_stride = k,
                .y = y.data(),
                .y_stride = n,
                .n0 = 0,
                .n1 = n,
                .rows = rows,
                .packed = packed.data()});
  bool good = true;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < n; ++i) {
      double want = 0, scale = 0;
      for (std::int64_t c = 0; c < k; ++c) {
        const auto wi = static_cast<std::size_t>(i * k + c), xi = static_cast<std::size_t>(r * k + c);
        const double product = static_cast<double>(half ? bf16_to_float(wb[wi]) : w[wi]) *
                               static_cast<double>(dot ? bf16_to_float(xb[xi]) : x[xi]);
        want += product;
        scale += std::fabs(product);
      }
      // One rounding for each addition in a lane and in the final tree, plus those of the products.
      good &= close(static_cast<double>(y[static_cast<std::size_t>(r * n + i)]), want, scale,
                    2.0 * (static_cast<double>(k) / 8 + 8));
    }
  }
  CHECK(good);
}

TEST(matmul_of_every_shape_and_dtype) {
  for_each_level([](const KernelTable& table) {
    for (const std::int64_t k : kSizes)
      for (const std::int64_t n : {1, 3, 4, 5, 8, 9, 17, 32, 50})
        for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 33, 48, 50, 64}) {
          check_matmul(table, n, k, rows, DType::kFloat32, false);
          check_matmul(table, n, k, rows, DType::kBFloat16, false);
          if (table.has_dot) check_matmul(table, n, k, rows, DType::kBFloat16, true);
        }
  });
}

// Memory for n numbers that ends at a page which cannot be touched.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::size_t n) {
    const std::size_t bytes = (n * sizeof(T) + kPage - 1) / kPage * kPage;
    size_ = bytes + kPage;
    pages_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages_ == MAP_FAILED) throw std::bad_alloc();
    auto* end = static_cast<std::byte*>(pages_) + bytes;
    ::mprotect(end, kPage, PROT_NONE);
    data_ = reinterpret_cast<T*>(end) - n;
  }
  ~Guarded() { ::munmap(pages_, size_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  T* data() { return data_; }

 private:
  static constexpr std::size_t kPage = 1 << 16;  // of any machine, or a multiple
  void* pages_;
  std::size_t size_;
  T* data_;
};

// Columns [n0, n1) of rows that lie apart: the bits of the whole product, nothing else written, nothing read past an
// end.
TEST(matmul_of_some_columns_between_others) {
  for_each_level([](const KernelTable& table) {
    constexpr std::int64_t n = 52, apart = 7;
    for (const std::int64_t k : {32, 70})
      for (const std::int64_t rows : {2, 16, 20, 40, 64})
        for (const bool dot : {false, true}) {
          if (dot && !table.has_dot) continue;
          const auto wb = to_bf16(random_floats(static_cast<std::size_t>(n * k), 3));
          const auto x = random_floats(static_cast<std::size_t>(rows * k), 4);
          const auto xb = to_bf16(x);
          Guarded<std::uint16_t> w(wb.size()), halves(xb.size());
          Guarded<std::uint16_t> packed(static_cast<std::size_t>(packed_size(rows, k)));
          Guarded<float> floats(x.size());
          std::copy(wb.begin(), wb.end(), w.data());
          std::copy(xb.begin(), xb.end(), halves.data());
          std::copy(x.begin(), x.end(), floats.data());
          MatmulArgs args{.w = w.data(),
                          .w_dtype = DType::kBFloat16,
                          .cols = k,
                          .x = dot ? static_cast<const void*>(halves.data()) : floats.data(),
                          .x_dtype = dot ? DType::kBFloat16 : DType::kFloat32,
                          .x_stride = k,
                          .y = nullptr,
                          .y_stride = n,
                          .n0 = 0,
                          .n1 = n,
                          .rows = rows,
                          .packed = packed.data()};
          std::vector<float> whole(static_cast<std::size_t>(rows * n));
          args.y = whole.data();
          table.matmul(args);
          for (const auto& [n0, n1] : {std::pair<std::int64_t, std::int64_t>{16, n}, {4, 37}}) {
            std::vector<float> part(static_cast<std::size_t>(rows * (n + apart)), 5.0f);
            args.y = part.data();
            args.y_stride = n + apart;
            args.n0 = n0;
            args.n1 = n1;
            table.matmul(args);
            bool good = true;
            for (std::int64_t r = 0; r < rows; ++r)
              for (std::int64_t i = 0; i < n + apart; ++i) {
                const float got = part[static_cast<std::size_t>(r * (n + apart) + i)];
                good &= got == (i >= n0 && i < n1 ? whole[static_cast<std::size_t>(r * n + i)] : 5.0f);
              }
            CHECK(good);
          }
        }
  });
}

}  // namespace
}  // namespace nsrt::cpu
