#include "python/prefill_attention.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/check.h"
#include "python/dlpack_exchange.h"
#include "python/native_call.h"

namespace nsrt::python {
namespace {

namespace py = pybind11;

// Lends arrays for its lifetime.
class Lender {
 public:
  Lender(const PrefillAttention& task, std::int64_t stream) : task_(task), stream_(stream) {}
  ~Lender() {
    for (const py::object& array : lent_) array.cast<LentArray&>().end();
  }
  Lender(const Lender&) = delete;
  Lender& operator=(const Lender&) = delete;

  py::object lend(const void* data, std::vector<std::int64_t> shape, std::vector<std::int64_t> strides = {}) {
    // Writable all: torch knows no other kind, and warns.
    DlpackExport tensor{.data = const_cast<void*>(data),
                        .kind = task_.dtype == DType::kFloat32 ? Kind::kFloat32 : Kind::kBFloat16,
                        .shape = std::move(shape),
                        .device = {kDLCUDA, task_.device},
                        .read_only = false,
                        .strides = std::move(strides)};
    return lent_.emplace_back(py::cast(std::make_unique<LentArray>(std::move(tensor), stream_)));
  }

 private:
  const PrefillAttention& task_;
  std::int64_t stream_;
  std::vector<py::object> lent_;
};

}  // namespace

void set_prefill_attention(Engine& self, const py::object& attention) {
  if (attention.is_none()) return self.set_prefill_attention({});
  check<InvalidRequest>(PyCallable_Check(attention.ptr()) == 1, "attention is a ",
                        py::type::of(attention).attr("__name__").cast<std::string>(),
                        "; give a function of (q, k, v, out, stream), or None");
  // The last reference may go while the GIL is released.
  const std::shared_ptr<py::object> function(new py::object(attention), [](auto* object) {
    const py::gil_scoped_acquire gil;
    delete object;
  });
  self.set_prefill_attention([function](const PrefillAttention& task) {
    check<Cancelled>(!NativeCall::stopping(), "stopped during prefill: the interpreter is exiting");
    const py::gil_scoped_acquire gil;
    const auto stream = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(task.stream));
    const std::vector<std::int64_t> of_rows = {task.rows, task.h_q, task.d_head};
    const std::vector<std::int64_t> of_cache = {task.h_kv, task.positions, task.d_head};
    const std::vector<std::int64_t> strides = {task.capacity * task.d_head, task.d_head, 1};
    Lender lender(task, stream);
    (*function)(lender.lend(task.q, of_rows), lender.lend(task.k, of_cache, strides),
                lender.lend(task.v, of_cache, strides), lender.lend(task.out, of_rows), stream);
  });
}

}  // namespace nsrt::python
