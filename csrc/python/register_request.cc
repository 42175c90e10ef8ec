// SamplingParams, the time grid and the noise.
#include <pybind11/stl.h>

#include "core/check.h"
#include "core/solver.h"
#include "nextstep_rt/engine.h"
#include "python/arrays.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

SamplingParams make_params(std::int64_t num_tokens, std::int64_t steps, double guidance, double image_guidance,
                           const std::string& schedule, bool renorm, double shift, const std::string& solver,
                           double noise_level, double last_step_size, bool normalize, std::int64_t branches) {
  SamplingParams p;
  p.num_tokens = num_tokens;
  p.num_inference_steps = steps;
  p.guidance_scale = guidance;
  p.image_guidance_scale = image_guidance;
  p.guidance_schedule = guidance_schedule_from_name(schedule);
  p.guidance_renorm = renorm;
  p.timestep_shift = shift;
  p.solver = solver_from_name(solver);
  p.noise_level = noise_level;
  p.last_step_size = last_step_size;
  p.normalize_tokens = normalize;
  p.branches = branches;
  p.validate();
  return p;
}

py::array_t<float> noise(std::uint64_t seed, std::int64_t token, std::int64_t draw, std::int64_t n) {
  check<InvalidRequest>(n >= 0 && n <= (std::int64_t{1} << 32), "n is ", n, "; it must be between 0 and 2^32");
  py::array_t<float> out = make_floats({n});
  normal_noise(seed, token, draw, n, out.mutable_data());
  return out;
}

}  // namespace

void register_request(py::module_& m) {
  using P = SamplingParams;
  py::class_<P>(m, "SamplingParams", "How image tokens are sampled. Raises InvalidRequest on an impossible value.")
      .def(py::init(&make_params), py::kw_only(), py::arg("num_tokens"), py::arg("num_inference_steps") = 28,
           py::arg("guidance_scale") = 7.5, py::arg("image_guidance_scale") = 1.0,
           py::arg("guidance_schedule") = "constant", py::arg("guidance_renorm") = false,
           py::arg("timestep_shift") = 1.0, py::arg("solver") = "sde", py::arg("noise_level") = 0.8,
           py::arg("last_step_size") = 0.04, py::arg("normalize_tokens") = true, py::arg("branches") = 1)
      .def_readonly("num_tokens", &P::num_tokens)
      .def_readonly("num_inference_steps", &P::num_inference_steps)
      .def_readonly("guidance_scale", &P::guidance_scale)
      .def_readonly("image_guidance_scale", &P::image_guidance_scale)
      .def_property_readonly("guidance_schedule", [](const P& p) { return name_of(p.guidance_schedule); })
      .def_readonly("guidance_renorm", &P::guidance_renorm)
      .def_readonly("timestep_shift", &P::timestep_shift)
      .def_property_readonly("solver", [](const P& p) { return name_of(p.solver); })
      .def_readonly("noise_level", &P::noise_level)
      .def_readonly("last_step_size", &P::last_step_size)
      .def_readonly("normalize_tokens", &P::normalize_tokens)
      .def_readonly("branches", &P::branches);

  m.def(
      "time_grid",
      [](const P& p) {
        const std::vector<float> grid = time_grid(p);
        return to_numpy(grid, {static_cast<std::int64_t>(grid.size())});
      },
      py::arg("params"), "The solver's knots, float32 [num_inference_steps + 1] (one fewer for sde-final-ode).");
  m.def("normal_noise", &noise, py::arg("seed"), py::arg("token"), py::arg("draw"), py::arg("n"),
        "Standard normals, float32 [n]: a pure function of its arguments (Philox-4x32-10, Box-Muller). Draw 0 starts "
        "token `token` of the image with this seed, draw 1 + k drives solver step k.");
}

}  // namespace nsrt::python
