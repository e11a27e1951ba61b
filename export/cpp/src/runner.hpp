#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "bundle.hpp"
#include "image.hpp"
#include "logits.hpp"

namespace g2sd {

/// Something that turns images into logits. One caller at a time.
class Runner {
  public:
    Runner() = default;
    Runner(const Runner&) = delete;
    Runner(Runner&&) = delete;
    Runner& operator=(const Runner&) = delete;
    Runner& operator=(Runner&&) = delete;
    virtual ~Runner() = default;

    /// Runtime, version and settings, for example `openvino 2026.4.1 CPU f32`.
    virtual std::string describe() const = 0;

    /// Keep at least one image as the network takes it.
    virtual void prepare(const ImageBatch& images) = 0;

    /// Logits of what was prepared last; returns when the work is done.
    virtual Logits forward() = 0;

    Logits infer(const ImageBatch& images) {
        prepare(images);
        return forward();
    }
};

/// The runtimes that this program was built with, as the manifest calls them.
std::string built_runtimes();

/// A variant on its runtime.
///
/// Throws UserError where the program was built without the runtime, or the runtime cannot do what the variant asks
/// for; IntegrityError where the model is not what the manifest says.
std::unique_ptr<Runner> open_runner(const Bundle& bundle, const Variant& variant, std::size_t threads);

/// The one setting that a variant of this runtime has. Throws UserError where it has others: a setting that is ignored
/// or guessed would run something else than what was proven.
const std::string& only_setting(const Variant& variant, const std::string& key);

/// CPUs this process may run on (a container's affinity counts, the machine's total does not).
std::size_t available_cpus();

// One function per runtime; each is there only where the program was built with it.
std::unique_ptr<Runner> open_openvino(const Bundle& bundle, const Variant& variant, std::size_t threads);
std::unique_ptr<Runner> open_onnxruntime(const Bundle& bundle, const Variant& variant, std::size_t threads);
std::unique_ptr<Runner> open_tensorrt(const Bundle& bundle, const Variant& variant);

}  // namespace g2sd
