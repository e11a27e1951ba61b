#include <algorithm>
#include <map>
#include <openvino/openvino.hpp>
#include <string>
#include <utility>
#include <vector>

#include "error.hpp"
#include "image_input.hpp"
#include "runner.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

/// OpenVINO's exceptions as errors of ours.
template <typename Work>
auto guarded(const std::string& what, Work work) -> decltype(work()) {
    try {
        return work();
    } catch (const ov::Exception& error) {
        throw UserError(concat(what, ": OpenVINO says: ", one_line(error.what())));
    }
}

ov::element::Type precision_of(const Variant& variant) {
    const std::string& name = only_setting(variant, "inference_precision");
    if (name != "f32" && name != "bf16") {
        throw UserError("variant " + variant.name + ": inference_precision is " + name + "; it must be f32 or bf16");
    }
    return name == "f32" ? ov::element::f32 : ov::element::bf16;
}

/// A model compiled for one batch size, which is faster than one that takes any (Python's runner measured 7 to 9 %).
struct Compiled {
    ov::CompiledModel model;
    ov::InferRequest request;
};

class OpenVinoRunner : public Runner {
  public:
    OpenVinoRunner(const Bundle& bundle, const Variant& variant, std::size_t threads)
        : what_((bundle.folder / variant.file).string()),
          input_(variant.input, bundle.preprocessing),
          input_name_(variant.input.name),
          output_name_(variant.output),
          num_classes_(bundle.class_names.size()),
          threads_(static_cast<int>(threads)),
          precision_(precision_of(variant)) {
        guarded(what_, [&] { open(text_of(bundle.read(variant.file))); });
    }

    std::string describe() const override {
        const ov::Version version = ov::get_openvino_version();
        const std::string build = version.buildNumber;
        return concat("openvino ", build.substr(0, build.find('-')), " CPU ", precision_.get_type_name());
    }

    void prepare(const ImageBatch& images) override {
        guarded(what_, [&] {
            prepared_ = images.count;
            input_.write(images, compiled_for(prepared_).request.get_input_tensor().data());
        });
    }

    Logits forward() override {
        return guarded(what_, [this] { return run(); });
    }

  private:
    std::string what_;
    ImageInput input_;
    std::string input_name_;
    std::string output_name_;
    std::size_t num_classes_;
    int threads_;
    ov::element::Type precision_;
    ov::Core core_;
    std::shared_ptr<ov::Model> model_;
    std::map<std::size_t, Compiled> compiled_;
    std::size_t prepared_ = 0;  // images whose tensor is filled

    void open(const std::string& content) {
        check_capability();
        model_ = core_.read_model(content, ov::Tensor());
        const ov::Output<ov::Node> input = model_->input();
        const ov::element::Type wanted = input_.is_float() ? ov::element::f32 : ov::element::u8;
        if (input.get_names().count(input_name_) == 0 || input.get_element_type() != wanted) {
            throw IntegrityError(what_ + ": its input is not the one that the manifest describes");
        }
        const ov::Output<ov::Node> output = model_->output(output_name_);
        const auto classes = static_cast<std::int64_t>(num_classes_);
        if (!output.get_partial_shape().compatible({ov::Dimension::dynamic(), classes})) {
            throw IntegrityError(concat(what_, ": does not give ", num_classes_, " logits, one per class"));
        }
    }

    void check_capability() {
        const auto can = core_.get_property("CPU", ov::device::capabilities);
        if (precision_ == ov::element::bf16 && std::find(can.begin(), can.end(), "BF16") == can.end()) {
            throw UserError("this CPU has no bf16; choose a variant of another precision with --variant");
        }
    }

    Compiled& compiled_for(std::size_t count) {
        const auto found = compiled_.find(count);
        if (found != compiled_.end()) {
            return found->second;
        }
        const auto fixed = model_->clone();
        fixed->reshape(ov::PartialShape(ov::Shape(input_.shape(count))));
        // Without a precision OpenVINO computes float32 models in bf16 where the CPU has it, and does not say so.
        auto model = core_.compile_model(fixed, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                         ov::num_streams(1), ov::inference_num_threads(threads_),
                                         ov::hint::inference_precision(precision_));
        if (model.get_property(ov::hint::inference_precision) != precision_) {
            throw UserError(
                concat(what_, ": OpenVINO computes in another precision than ", precision_.get_type_name()));
        }
        auto request = model.create_infer_request();
        return compiled_.emplace(count, Compiled{std::move(model), std::move(request)}).first->second;
    }

    Logits run() {
        ov::InferRequest& request = compiled_for(prepared_).request;
        request.infer();
        const ov::Tensor answer = request.get_tensor(output_name_);
        if (answer.get_element_type() != ov::element::f32 || answer.get_shape() != ov::Shape{prepared_, num_classes_}) {
            throw IntegrityError(what_ + ": its output is not the one that the manifest describes");
        }
        const auto* values = answer.data<const float>();
        return {prepared_, num_classes_, {values, values + answer.get_size()}};
    }
};

}  // namespace

std::unique_ptr<Runner> open_openvino(const Bundle& bundle, const Variant& variant, std::size_t threads) {
    return std::make_unique<OpenVinoRunner>(bundle, variant, threads);
}

}  // namespace g2sd
