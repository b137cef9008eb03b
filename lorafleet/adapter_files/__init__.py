"""What names and shapes of tensors in adapter files say, without their values. No torch: the control plane asks here too."""
