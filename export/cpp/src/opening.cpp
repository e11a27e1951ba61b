#include <sched.h>

#include <algorithm>
#include <vector>

#include "error.hpp"
#include "runner.hpp"
#include "text.hpp"

#ifndef G2SD_TENSORRT_NAME
#define G2SD_TENSORRT_NAME ""
#endif

namespace g2sd {

std::string built_runtimes() {
    std::vector<std::string> names;
#ifdef G2SD_WITH_OPENVINO
    names.emplace_back("openvino");
#endif
#ifdef G2SD_WITH_ONNXRUNTIME
    names.emplace_back("onnxruntime");
#endif
#ifdef G2SD_WITH_TENSORRT
    names.emplace_back(G2SD_TENSORRT_NAME);
#endif
    return join(names, ", ");
}

std::unique_ptr<Runner> open_runner(const Bundle& bundle, const Variant& variant, std::size_t threads) {
    static_cast<void>(threads);  // a build for TensorRT alone has no use for it
#ifdef G2SD_WITH_OPENVINO
    if (variant.runtime == "openvino") {
        return open_openvino(bundle, variant, threads);
    }
#endif
#ifdef G2SD_WITH_ONNXRUNTIME
    if (variant.runtime == "onnxruntime") {
        return open_onnxruntime(bundle, variant, threads);
    }
#endif
#ifdef G2SD_WITH_TENSORRT
    if (variant.runtime == G2SD_TENSORRT_NAME) {
        return open_tensorrt(bundle, variant);
    }
#endif
    throw UserError(concat(bundle.folder.string(), ": variant ", variant.name, " runs on ", variant.runtime,
                           ", and this program was built for ", built_runtimes(),
                           "; name another variant with --variant, or build the program with that runtime"));
}

const std::string& only_setting(const Variant& variant, const std::string& key) {
    const auto& settings = variant.settings.object();
    if (settings.size() != 1 || settings.front().first != key) {
        throw UserError(
            concat("variant ", variant.name, ": its settings are ", variant.settings.dump(), "; wanted ", key));
    }
    return settings.front().second.string();
}

std::size_t available_cpus() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    const bool known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
    return known ? static_cast<std::size_t>(std::max(CPU_COUNT(&allowed), 1)) : 1;
}

}  // namespace g2sd
