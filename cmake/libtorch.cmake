# LibTorch: the one that CMAKE_PREFIX_PATH (variable or environment) names, else the one in the project's
# .venv. Its root goes first on the search path, for TorchConfig.cmake looks for libc10 by name and would
# otherwise take an older one that the system happens to have.
file(TO_CMAKE_PATH "$ENV{CMAKE_PREFIX_PATH}" named_by_environment)
file(GLOB in_virtual_environment ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)

unset(PROVISO_TORCH_ROOT)
foreach(candidate IN LISTS CMAKE_PREFIX_PATH named_by_environment in_virtual_environment)
  if(EXISTS ${candidate}/share/cmake/Torch/TorchConfig.cmake)
    set(PROVISO_TORCH_ROOT ${candidate})
    break()
  elseif(EXISTS ${candidate}/Torch/TorchConfig.cmake)
    cmake_path(SET PROVISO_TORCH_ROOT NORMALIZE ${candidate}/../..)
    break()
  endif()
endforeach()
if(NOT PROVISO_TORCH_ROOT)
  message(FATAL_ERROR "LibTorch not found: run `make build`, which installs it into .venv, or name yours, "
                      "-DCMAKE_PREFIX_PATH=/path/to/libtorch")
endif()

list(PREPEND CMAKE_PREFIX_PATH ${PROVISO_TORCH_ROOT}/share/cmake ${PROVISO_TORCH_ROOT})
find_package(Torch REQUIRED)
