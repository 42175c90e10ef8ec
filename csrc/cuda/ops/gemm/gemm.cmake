# The products of prefill: CUTLASS's headers, which the Python package nvidia-cutlass brings. A library of objects for each
# of the two kernels, compiled for the GPUs that run it; what is not compiled is listed in NSRT_GEMM_ABSENT.
find_package(Python COMPONENTS Interpreter QUIET)
if(Python_Interpreter_FOUND)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
      "from importlib.util import find_spec; print(find_spec('cutlass_library').submodule_search_locations[0])"
    OUTPUT_VARIABLE NSRT_CUTLASS_PACKAGE OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
# A later configuration may find what this one does not.
if(NOT NSRT_CUTLASS_DIR)
  unset(NSRT_CUTLASS_DIR CACHE)
endif()
find_path(NSRT_CUTLASS_DIR cutlass/cutlass.h
  HINTS ${NSRT_CUTLASS_PACKAGE}/source/include
  DOC "The folder of CUTLASS's headers, which holds cutlass/cutlass.h")

set(NSRT_GEMM_SM90_ARCHITECTURES ${NSRT_CUDA_ARCHITECTURES})
list(FILTER NSRT_GEMM_SM90_ARCHITECTURES INCLUDE REGEX "^90a")
set(NSRT_GEMM_SM80_ARCHITECTURES ${NSRT_CUDA_ARCHITECTURES})
list(FILTER NSRT_GEMM_SM80_ARCHITECTURES EXCLUDE REGEX "^90a")

set(NSRT_GEMM_ABSENT)
foreach(SM 80 90)
  if(NOT NSRT_CUTLASS_DIR OR NOT NSRT_GEMM_SM${SM}_ARCHITECTURES)
    list(APPEND NSRT_GEMM_ABSENT ${CMAKE_CURRENT_LIST_DIR}/absent/gemm_sm${SM}.cc)
    continue()
  endif()
  nsrt_add_cuda_objects(nsrt_gemm_sm${SM} "${NSRT_GEMM_SM${SM}_ARCHITECTURES}"
    ${CMAKE_CURRENT_LIST_DIR}/cutlass/gemm_sm${SM}.cu)
  target_include_directories(nsrt_gemm_sm${SM} SYSTEM PRIVATE ${NSRT_CUTLASS_DIR})
  # Its assertions would end the process; what they look for is checked before.
  target_compile_definitions(nsrt_gemm_sm${SM} PRIVATE NDEBUG)
  list(APPEND NSRT_CUDA_OBJECTS nsrt_gemm_sm${SM})
endforeach()
if(NSRT_CUTLASS_DIR)
  message(STATUS "Products of prefill: CUTLASS in ${NSRT_CUTLASS_DIR}")
else()
  message(STATUS "Products of prefill: linear kernels in chunks of rows. CUTLASS is faster: "
                 "pip install --no-deps nvidia-cutlass, or set NSRT_CUTLASS_DIR to its include folder")
endif()
