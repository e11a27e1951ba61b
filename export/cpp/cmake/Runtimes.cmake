# Each runtime adds one source, one definition and its libraries to g2sd-runner. Nothing is downloaded.

if(G2SD_OPENVINO)
  if(NOT OpenVINO_DIR)
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c
        "import importlib.util as u, pathlib; s = u.find_spec('openvino'); print(pathlib.Path(s.origin).parent / 'cmake' if s else '', end='')"
      OUTPUT_VARIABLE wheel_cmake)
    set(OpenVINO_DIR "${wheel_cmake}" CACHE PATH "Folder of OpenVINOConfig.cmake" FORCE)
  endif()
  find_package(OpenVINO REQUIRED COMPONENTS Runtime)
  target_sources(g2sd-runner PRIVATE src/openvino_runner.cpp)
  target_compile_definitions(g2sd-runner PRIVATE G2SD_WITH_OPENVINO)
  target_link_libraries(g2sd-runner PRIVATE openvino::runtime)
endif()

if(G2SD_ONNXRUNTIME_ROOT)
  find_path(G2SD_ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h REQUIRED
    PATHS ${G2SD_ONNXRUNTIME_ROOT} PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session NO_DEFAULT_PATH)
  find_library(G2SD_ONNXRUNTIME_LIBRARY onnxruntime REQUIRED PATHS ${G2SD_ONNXRUNTIME_ROOT} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
  target_sources(g2sd-runner PRIVATE src/onnxruntime_runner.cpp)
  target_compile_definitions(g2sd-runner PRIVATE G2SD_WITH_ONNXRUNTIME)
  target_include_directories(g2sd-runner SYSTEM PRIVATE ${G2SD_ONNXRUNTIME_INCLUDE})
  target_link_libraries(g2sd-runner PRIVATE ${G2SD_ONNXRUNTIME_LIBRARY})
endif()

if(G2SD_TENSORRT_ROOT)
  find_package(CUDAToolkit REQUIRED)
  find_path(G2SD_TENSORRT_INCLUDE NvInfer.h REQUIRED PATHS ${G2SD_TENSORRT_ROOT} PATH_SUFFIXES include NO_DEFAULT_PATH)
  find_library(G2SD_TENSORRT_LIBRARY NAMES nvinfer tensorrt_rtx libtensorrt_rtx.so.1 REQUIRED
    PATHS ${G2SD_TENSORRT_ROOT} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
  # An engine of the one cannot be opened by the other, so the manifest tells them apart.
  if(G2SD_TENSORRT_LIBRARY MATCHES "tensorrt_rtx")
    set(G2SD_TENSORRT_NAME tensorrt_rtx)
  else()
    set(G2SD_TENSORRT_NAME tensorrt)
  endif()
  target_sources(g2sd-runner PRIVATE src/tensorrt_runner.cpp)
  target_compile_definitions(g2sd-runner PRIVATE G2SD_WITH_TENSORRT G2SD_TENSORRT_NAME="${G2SD_TENSORRT_NAME}")
  target_include_directories(g2sd-runner SYSTEM PRIVATE ${G2SD_TENSORRT_INCLUDE})
  target_link_libraries(g2sd-runner PRIVATE ${G2SD_TENSORRT_LIBRARY} CUDA::cudart)
endif()

if(NOT (G2SD_OPENVINO OR G2SD_ONNXRUNTIME_ROOT OR G2SD_TENSORRT_ROOT))
  message(FATAL_ERROR "g2sd-runner needs a runtime: G2SD_OPENVINO=ON, G2SD_ONNXRUNTIME_ROOT or G2SD_TENSORRT_ROOT")
endif()
