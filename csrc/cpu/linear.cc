// Products of the CPU backend: preparing their input once a member, splitting their columns, and what follows them.
#include <algorithm>
#include <cstring>

#include "cpu/cpu_backend.h"

namespace nsrt::cpu {

void* CpuBackend::input_row(Buffer<std::byte>& buffer, std::int64_t row, std::int64_t width) const {
  return buffer.data() + static_cast<std::size_t>(row * width) * input_size();
}

void CpuBackend::to_input(const float* x, std::int64_t n, void* out) const {
  if (input_dtype_ == DType::kBFloat16)
    kernels_.to_bf16(x, n, static_cast<std::uint16_t*>(out));
  else
    std::memcpy(out, x, static_cast<std::size_t>(n) * sizeof(float));
}

Operand CpuBackend::prepare(Team& team, const float* x, std::int64_t stride, std::int64_t rows, std::int64_t n) {
  Buffer<std::byte>& input = scratch(team).input;
  if (input_dtype_ == DType::kFloat32) return {x, stride};
  for (std::int64_t r = 0; r < rows; ++r) to_input(x + r * stride, n, input_row(input, r, n));
  return {input.data(), n};
}

Operand CpuBackend::normed(Team& team, const float* weight, std::int64_t rows) {
  Scratch& s = scratch(team);
  const std::int64_t d = config_.hidden_size;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  for (std::int64_t r = 0; r < rows; ++r) {
    kernels_.rms_norm(x_.data() + r * d, weight, d, eps, s.row.data());
    to_input(s.row.data(), d, input_row(s.input, r, d));
  }
  return {s.input.data(), d};
}

Team::Range CpuBackend::product(Team& team, const Linear& linear, Operand x, std::int64_t rows, float* y,
                                std::int64_t stride) {
  const Team::Range share = team.share(linear.w.rows, kColumnUnit);
  if (share.begin < share.end) {
    kernels_.matmul({.w = linear.w.data,
                     .w_dtype = linear.w.dtype,
                     .cols = linear.w.cols,
                     .x = x.data,
                     .x_dtype = input_dtype_,
                     .x_stride = x.stride,
                     .y = y,
                     .y_stride = stride,
                     .n0 = share.begin,
                     .n1 = share.end,
                     .rows = rows,
                     .packed = scratch(team).packed.data()});
  }
  return share;
}

void CpuBackend::linear(Team& team, const Linear& linear, Operand x, std::int64_t rows, float* y, std::int64_t stride,
                        const float* residual, bool silu) {
  float* raw = residual ? tmp_.data() : y;
  const std::int64_t raw_stride = residual ? config_.hidden_size : stride;
  const auto [begin, end] = product(team, linear, x, rows, raw, raw_stride);
  if (!linear.bias && !residual && !silu) return;
  for (std::int64_t r = 0; r < rows; ++r) {
    kernels_.epilogue(raw + r * raw_stride + begin, linear.bias ? linear.bias + begin : nullptr,
                      residual ? residual + r * stride + begin : nullptr, silu, end - begin, y + r * stride + begin);
  }
}

void CpuBackend::linear_silu_to_input(Team& team, const Linear& linear, Operand x, std::int64_t rows, float* tmp,
                                      Buffer<std::byte>& y) {
  const std::int64_t width = linear.w.rows;
  const auto [begin, end] = product(team, linear, x, rows, tmp, width);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* slice = tmp + r * width + begin;
    kernels_.epilogue(slice, linear.bias ? linear.bias + begin : nullptr, nullptr, true, end - begin, slice);
    to_input(slice, end - begin,
             static_cast<std::byte*>(input_row(y, r, width)) + static_cast<std::size_t>(begin) * input_size());
  }
}

void CpuBackend::project_in_team(Team& team, const float* tokens, std::int64_t n, float* out) {
  const std::int64_t d_tok = config_.token_dim(), d = config_.hidden_size;
  for (std::int64_t i = 0; i < n; i += kChunkRows) {
    const std::int64_t rows = std::min(kChunkRows, n - i);
    linear(team, weights_.image_in, prepare(team, tokens + i * d_tok, d_tok, rows, d_tok), rows, out + i * d, d);
  }
}

void CpuBackend::project_tokens(const float* tokens, std::int64_t n, float* out) {
  pool_.run([&](Team& team) { project_in_team(team, tokens, n, out); });
}

}  // namespace nsrt::cpu
