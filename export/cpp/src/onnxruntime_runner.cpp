#include <onnxruntime_cxx_api.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "error.hpp"
#include "image_input.hpp"
#include "runner.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

Ort::SessionOptions options_with(std::size_t threads) {
    Ort::SessionOptions options;
    options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
    options.SetIntraOpNumThreads(static_cast<int>(threads));
    options.SetInterOpNumThreads(1);
    return options;
}

class OnnxRuntimeRunner : public Runner {
  public:
    OnnxRuntimeRunner(const Bundle& bundle, const Variant& variant, std::size_t threads)
        : what_((bundle.folder / variant.file).string()),
          input_(variant.input, bundle.preprocessing),
          input_name_(variant.input.name),
          output_name_(variant.output),
          num_classes_(bundle.class_names.size()) {
        if (const std::string& provider = only_setting(variant, "provider"); provider != "CPUExecutionProvider") {
            throw UserError(concat("variant ", variant.name, ": asks for ", provider,
                                   ", and this program has only CPUExecutionProvider"));
        }
        const Bytes content = bundle.read(variant.file);
        guarded([&] { session_ = Ort::Session(env_, content.data(), content.size(), options_with(threads)); });
        guarded([this] { check_types(); });
    }

    std::string describe() const override {
        return concat("onnxruntime ", OrtGetApiBase()->GetVersionString(), " CPUExecutionProvider");
    }

    void prepare(const ImageBatch& images) override {
        count_ = images.count;
        prepared_.resize(images.pixels.size() * input_.value_bytes());
        input_.write(images, prepared_.data());
    }

    Logits forward() override {
        Logits logits;
        guarded([&] { logits = run(); });
        return logits;
    }

  private:
    std::string what_;
    ImageInput input_;
    std::string input_name_;
    std::string output_name_;
    std::size_t num_classes_;
    Bytes prepared_;
    std::size_t count_ = 0;
    Ort::Env env_{ORT_LOGGING_LEVEL_ERROR, "g2sd"};
    Ort::Session session_{nullptr};

    /// ONNX Runtime's exceptions as errors of ours.
    template <typename Work>
    void guarded(Work work) const {
        try {
            work();
        } catch (const Ort::Exception& error) {
            throw UserError(concat(what_, ": ONNX Runtime says: ", one_line(error.what())));
        }
    }

    ONNXTensorElementDataType input_type() const {
        return input_.is_float() ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    }

    void check_types() const {
        const Ort::TypeInfo info = session_.GetInputTypeInfo(0);
        if (session_.GetInputCount() != 1 || info.GetTensorTypeAndShapeInfo().GetElementType() != input_type()) {
            throw IntegrityError(what_ + ": its input is not the one that the manifest describes");
        }
    }

    Logits run() {
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto sizes = input_.shape(count_);
        const std::vector<std::int64_t> shape(sizes.begin(), sizes.end());
        const Ort::Value tensor = Ort::Value::CreateTensor(memory, prepared_.data(), prepared_.size(), shape.data(),
                                                           shape.size(), input_type());
        const std::array<const char*, 1> inputs{input_name_.c_str()};
        const std::array<const char*, 1> outputs{output_name_.c_str()};
        const auto answers = session_.Run(Ort::RunOptions(nullptr), inputs.data(), &tensor, 1, outputs.data(), 1);
        const auto info = answers.front().GetTensorTypeAndShapeInfo();
        const std::vector<std::int64_t> wanted{shape.front(), static_cast<std::int64_t>(num_classes_)};
        if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || info.GetShape() != wanted) {
            throw IntegrityError(what_ + ": its output is not the one that the manifest describes");
        }
        const auto* values = answers.front().GetTensorData<float>();
        return {count_, num_classes_, {values, values + count_ * num_classes_}};
    }
};

}  // namespace

std::unique_ptr<Runner> open_onnxruntime(const Bundle& bundle, const Variant& variant, std::size_t threads) {
    return std::make_unique<OnnxRuntimeRunner>(bundle, variant, threads);
}

}  // namespace g2sd
