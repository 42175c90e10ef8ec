// One .safetensors file: 8 bytes of header length, a JSON header, the tensors' bytes.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"
#include "nextstep_rt/tensor.h"

namespace nsrt {

// Buffers that old checkpoints carry and no part of the model reads; they may have any dtype and are left out.
bool is_unused_buffer(std::string_view name);

class SafetensorsFile {
 public:
  // Maps the file and checks its header: sizes, dtypes, that the tensors cover the data exactly once. Reads no weight,
  // except where a tensor is not aligned to its item size and has to be copied. Throws CheckpointError.
  explicit SafetensorsFile(const std::string& path);

  const MappedFile& file() const { return file_; }
  // Names as stored. The views live as long as this object, also when it is moved.
  const TensorMap& tensors() const { return tensors_; }

 private:
  void add(const std::string& name, TensorView view, const std::byte* data);

  MappedFile file_;
  TensorMap tensors_;
  std::vector<std::unique_ptr<std::byte[]>> copies_;
};

}  // namespace nsrt
