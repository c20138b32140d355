// Epochs view: the map of one question after each epoch of a training. `data`: names, says, veils.
startAll("epochs", (root, data) => {
  const picture = root.querySelector(".clv-stage img");
  stepper(root, data.names, (epoch) => {
    [picture.src, picture.alt] = [data.veils[epoch], data.says[epoch]];
  }, (epoch) => data.says[epoch], 700);
});
